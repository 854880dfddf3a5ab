class NodeAffinitySchedulingStrategy:
    def __init__(self, node, soft):
        pass
