"""One request and one reply of each kind. Tests send and check them."""

from typing import Any, Final

__all__ = ["ERROR", "REPLIES", "REQUESTS", "TILE"]

_TASK: Final = "19abad0d-6ec5-40a6-b7af-203775fa5b7f"
_SESSION: Final = "7d3f1c52-4a0e-4d19-b0a8-1f4f6b1d2c3e"
_IMAGE: Final = "0c1c5d2f-8f0c-4f4e-9a57-27a1de1a5bfb"
_RESULT: Final = "5b9d7a34-0d0b-4b52-9d0c-6f3f8c1e2a47"
_URL: Final = "http://127.0.0.1:8080/images/R2VtZWluc2NoYWZ0c3Nh.jpg"
# A PNG of 2 × 2 pixels.
_BASE64: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAFklEQVR4nGM4"
    "UaFh03OCIcpG7sOzSwAoQAZVm1V1dQAAAABJRU5ErkJggg=="
)

Example = dict[str, Any]

REQUESTS: Final[dict[str, Example]] = {
    "authentication": {
        "taskType": "authentication",
        "apiKey": "YOUR_KEY",
    },
    "ping": {"taskType": "ping", "ping": True},
    "imageUpload": {
        "taskType": "imageUpload",
        "taskUUID": _TASK,
        "image": f"data:image/png;base64,{_BASE64}",
    },
    "mediaStorage": {
        "taskType": "mediaStorage",
        "taskUUID": _TASK,
        "operation": "upload",
        "media": f"data:image/png;base64,{_BASE64}",
    },
    "upscale": {
        "taskType": "upscale",
        "taskUUID": _TASK,
        "model": "runware:504@1",
        "upscaleFactor": 4,
        "inputs": {"image": _IMAGE},
        "includeCost": True,
    },
    "imageUpscale": {
        "taskType": "imageUpscale",
        "taskUUID": _TASK,
        "inputImage": _IMAGE,
        "upscaleFactor": 2,
        "outputType": ["URL", "dataURI"],
        "outputFormat": "WEBP",
    },
    "getResponse": {"taskType": "getResponse", "taskUUID": _TASK},
    "getTaskDetails": {"taskType": "getTaskDetails", "taskUUID": _TASK},
    "accountManagement": {"taskType": "accountManagement", "taskUUID": _TASK, "operation": "getDetails"},
    "modelSearch": {"taskType": "modelSearch", "taskUUID": _TASK, "search": "anime", "limit": 10},
    "cancel": {
        "taskType": "cancel",
        "taskUUID": "f3a9a4f6-6a3c-4c6b-8a63-5e0b7d6f9c10",
        "targetTaskUUID": _TASK,
    },
}
"""By taskType."""

TILE: Final[Example] = {
    "taskType": "upscale",
    "taskUUID": _TASK,
    "status": "processing",
    "progress": 25,
    "tile": {
        "x": 0,
        "y": 0,
        "width": 512,
        "height": 512,
        "imageWidth": 2048,
        "imageHeight": 2048,
        "imageDataURI": "data:image/jpeg;base64,…",
    },
}

REPLIES: Final[dict[str, Example]] = {
    "AuthenticationResult": {"taskType": "authentication", "connectionSessionUUID": _SESSION},
    "PingResult": {"taskType": "ping", "pong": True},
    "ImageUploadResult": {
        "taskType": "imageUpload",
        "taskUUID": _TASK,
        "imageUUID": _IMAGE,
        "imageURL": _URL,
    },
    "MediaStorageResult": {
        "taskType": "mediaStorage",
        "taskUUID": _TASK,
        "operation": "upload",
        "mediaUUID": _IMAGE,
        "mediaURL": _URL,
    },
    "TaskDetails": {
        "taskType": "getTaskDetails",
        "taskUUID": _TASK,
        "request": [
            {
                "taskType": "upscale",
                "taskUUID": _TASK,
                "model": "realesrgan-x4plus",
                "inputs": {"image": _IMAGE},
            }
        ],
        "response": {"data": [{"taskType": "upscale", "taskUUID": _TASK, "imageURL": _URL}]},
    },
    "UpscaleResult": {
        "taskType": "upscale",
        "taskUUID": _TASK,
        "imageUUID": _RESULT,
        "inputImageUUID": _IMAGE,
        "imageURL": _URL,
        "cost": 0.001259,
    },
    "Acknowledgement": {"taskType": "upscale", "taskUUID": _TASK},
    "Progress": {"taskType": "upscale", "taskUUID": _TASK, "status": "processing", "progress": 42},
    "AccountManagementResult": {
        "taskType": "accountManagement",
        "taskUUID": _TASK,
        "operation": "getDetails",
        "organizationUUID": "a8c3f0de-52b1-4a6e-9b0e-3f1f2f0c7d55",
        "organizationName": "shop",
        "balance": {"amount": 9.87, "currency": "USD"},
        "team": [{"name": "shop", "email": "", "roles": ["Owner"], "joinedAt": "2026-01-31T12:00:00+00:00"}],
        "apiKeys": [
            {
                "name": "first",
                "apiKey": "tw_4fQ…",
                "enabled": True,
                "createdAt": "2026-01-31T12:00:00+00:00",
                "lastUsedAt": None,
            }
        ],
        "usage": {
            "total": {"credits": 0.13, "requests": 104},
            "today": {"credits": 0, "requests": 0},
            "last7Days": {"credits": 0.02, "requests": 16},
            "last30Days": {"credits": 0.13, "requests": 104},
        },
    },
    "UsageReport": {
        "taskType": "accountManagement",
        "taskUUID": _TASK,
        "operation": "getUsageActivity",
        "startDate": "2026-01-31",
        "endDate": "2026-01-31",
        "timezone": "UTC",
        "usage": {
            "model": {
                "data": [
                    {
                        "date": "2026-01-31",
                        "model": "runware:504@1",
                        "modelName": "Real-ESRGAN x4plus",
                        "count": 16,
                        "spend": 0.02,
                    }
                ],
                "meta": {
                    "count": 16,
                    "spend": 0.02,
                    "totalRequests": 16,
                    "totalResults": 16,
                    "totalSpend": 0.02,
                    "avgDailySpend": 0.02,
                    "projectedSpend": 0.6,
                },
            }
        },
    },
    "ModelSearchResult": {
        "taskType": "modelSearch",
        "taskUUID": _TASK,
        "totalResults": 1,
        "results": [
            {
                "air": "tilewire:realesrgan-x4plus-anime@1",
                "name": "realesrgan-x4plus-anime",
                "version": "1",
                "category": "upscaler",
                "architecture": "esrgan",
                "tags": ["upscale"],
                "title": "Real-ESRGAN x4plus anime",
                "comment": "For drawings.",
                "upscaleFactors": [2, 3, 4],
                "fractionalFactors": True,
                "parameters": [],
                "options": ["seamless", "tta", "blend", "checkNSFW"],
                "pricePerMegapixel": 0.0002,
                "licence": "BSD-3-Clause",
            }
        ],
    },
    "CancelResult": {
        "taskType": "cancel",
        "taskUUID": "f3a9a4f6-6a3c-4c6b-8a63-5e0b7d6f9c10",
        "targetTaskUUID": _TASK,
        "status": "cancelled",
        "result": "cancelled",
    },
}
"""By the name of the schema."""

ERROR: Final[Example] = {
    "code": "invalidUpscaleFactor",
    "message": "realesrgan-x4plus upscales by 2, 3, 4, or any number between 1 and 4",
    "parameter": "upscaleFactor",
    "type": "number",
    "taskType": "upscale",
    "taskUUID": _TASK,
    "documentation": "http://127.0.0.1:8080/docs/errors#invalidUpscaleFactor",
}
