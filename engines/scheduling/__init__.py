"""Which tile runs next, on which device, together with which others."""
