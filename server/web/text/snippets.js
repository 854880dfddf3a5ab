/** A task as code, for whoever wants to do it without the page. */

import { inHeredoc, inJson, inPython, inShell } from "./quoting.js";

/** @typedef {{name: string, hint: string, code: string}} Snippet */

const KEY = "YOUR_KEY";
const TYPES = { JPG: "image/jpeg", PNG: "image/png", WEBP: "image/webp" };

/**
 * @param {import("../tasks/tasks.js").Task} task That was started.
 * @param {string} http The server's address for POST, such as `http://host:8080/v1`.
 * @returns {Snippet[]}
 */
export function snippets(task, http) {
  const fields = parameters(task);
  const socket = http.replace(/^http/, "ws");
  return [
    { name: "curl", hint: "A POST; the answer comes when the image is done.", code: curl(task, fields, http) },
    { name: "Python", hint: "pip install runware-sdk", code: python(task, fields, http, socket) },
    { name: "JavaScript", hint: "npm install @runware/sdk-js", code: javascript(task, fields, socket) },
    { name: "WebSocket", hint: "Any browser; no library.", code: raw(fields, socket) },
  ];
}

/** @param {import("../tasks/tasks.js").Task} task @returns {[string, any][]} */
function parameters({ settings }) {
  if (settings === null) throw new Error("the task was not started");
  /** @type {[string, any][]} */
  const fields = [["model", settings.model]];
  if (settings.factor !== null) fields.push(["upscaleFactor", settings.factor]);
  if (settings.targetMegapixels !== null) fields.push(["targetMegapixels", settings.targetMegapixels]);
  fields.push(["outputFormat", settings.format]);
  if (settings.box?.width) fields.push(["width", settings.box.width]);
  if (settings.box?.height) fields.push(["height", settings.box.height]);
  if (settings.box?.mode) fields.push(["resizeMode", settings.box.mode]);
  if (settings.format !== "PNG") fields.push(["outputQuality", settings.quality]);
  if (settings.keepMetadata) fields.push(["keepMetadata", true]);
  if (Object.keys(settings.parameters).length) fields.push(["settings", settings.parameters]);
  fields.push(...Object.entries(settings.options ?? {}));
  return [...fields, ["includeCost", true]];
}

/**
 * The name of the file stands outside of the here-document, which a name with a line of its own could end. Each run gets a
 * UUID of its own, so that what was edited is another task.
 * @param {import("../tasks/tasks.js").Task} task @param {[string, any][]} fields @param {string} http
 */
function curl({ name }, fields, http) {
  const lines = fields.map(([field, value]) => `  "${field}": ${inHeredoc(inJson(value))},`);
  return `image=${inShell(name)}
curl ${inShell(http)} \\
  -H "Authorization: Bearer ${KEY}" \\
  -H "Content-Type: application/json" \\
  --data-binary @- <<TASK
[{
  "taskType": "upscale",
  "taskUUID": "$(uuidgen 2>/dev/null || cat /proc/sys/kernel/random/uuid)",
${lines.join("\n")}
  "inputs": {"image": "$(base64 < "$image" | tr -d '\\n')"}
}]
TASK
`;
}

/** @param {import("../tasks/tasks.js").Task} task @param {[string, any][]} fields @param {string} http @param {string} socket */
function python({ name }, fields, http, socket) {
  const lines = fields.map(([field, value]) => `        "${field}": ${inPython(value)},`);
  return `import asyncio
import base64
from pathlib import Path

from runware import Runware


async def main() -> None:
    image = base64.b64encode(Path(${inPython(name)}).read_bytes()).decode()
    task = {
        "taskType": "upscale",
        "inputs": {"image": image},
${lines.join("\n")}
    }
    client = Runware(
        api_key="${KEY}",
        transport="websocket",
        ws_base_url="${socket}",
        http_base_url="${http}",
    )
    async with client:
        results = await client.run(task)
    print(results[0]["imageURL"], results[0]["cost"])


asyncio.run(main())
`;
}

/** @param {import("../tasks/tasks.js").Task} task @param {[string, any][]} fields @param {string} socket */
function javascript({ name, format }, fields, socket) {
  const lines = fields.map(([field, value]) => `  ${field}: ${inJson(value)},`);
  return `import { readFileSync } from "node:fs";
import { RunwareServer } from "@runware/sdk-js";

const runware = new RunwareServer({ apiKey: "${KEY}", url: "${socket}" });
await runware.ensureConnection();
const image = readFileSync(${inJson(name)}).toString("base64");
const result = await runware.upscale({
  inputImage: \`data:${TYPES[format]};base64,\${image}\`,
${lines.join("\n")}
});
console.log(result.imageURL, result.cost);
await runware.disconnect();
`;
}

/** @param {[string, any][]} fields @param {string} socket */
function raw(fields, socket) {
  const lines = fields.map(([field, value]) => `    ${field}: ${inJson(value)},`);
  return `// image: a URL, a data URI or base64. It resolves with the result, or rejects with the error.
function upscale(image) {
  const task = {
    taskType: "upscale",
    taskUUID: crypto.randomUUID(),
    inputs: { image },
${lines.join("\n")}
  };
  const socket = new WebSocket("${socket}");
  socket.onopen = () => socket.send(JSON.stringify([{ taskType: "authentication", apiKey: "${KEY}" }]));
  return new Promise((resolve, reject) => {
    socket.onerror = reject;
    socket.onmessage = ({ data: frame }) => {
      const { data = [], errors = [] } = JSON.parse(frame);
      if (errors.length) reject(errors[0]);
      for (const item of data) {
        if (item.taskType === "authentication") socket.send(JSON.stringify([task]));
        if (item.taskUUID === task.taskUUID) resolve(item);
      }
      if (errors.length || data.some((item) => item.imageURL)) socket.close();
    };
  });
}
`;
}
