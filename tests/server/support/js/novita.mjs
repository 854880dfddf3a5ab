// Upscales by the official client of Novita, of an older version (v2) or of today's (v3), pointed at a server.
import { NovitaSDK } from "novita-sdk";

const [, , url, key, image, model] = process.argv;
const client = new NovitaSDK(key);
client.setBaseUrl(url);

async function byV2() {
  const images = await client.upscaleSync({ image, upscaler_1: model, resize_mode: 0, upscaling_resize: 2 }, { interval: 100 });
  return { images };
}

async function byV3() {
  const request = { image_base64: image, model_name: model, scale_factor: 2 };
  const { task_id } = await client.httpFetch({ url: "/v3/async/upscale", method: "POST", data: { request } });
  for (;;) {
    const { task, images } = await client.progress({ task_id });
    if (task.status === "TASK_STATUS_SUCCEED") return { images: images.map((each) => each.image_url) };
    if (task.status === "TASK_STATUS_FAILED") throw new Error(task.reason);
  }
}

async function refusal() {
  const data = { request: { image_base64: image, model_name: "no-such-model" } };
  const taken = client.upscaleSync ? client.upscaleSync({ image, upscaler_1: "no-such-model" }) : client.httpFetch({ url: "/v3/async/upscale", method: "POST", data });
  return taken.then(() => null, ({ code, msg, message }) => ({ code, message: msg ?? message }));
}

console.log(JSON.stringify({ ...(await (client.upscaleSync ? byV2() : byV3())), refused: await refusal() }));
