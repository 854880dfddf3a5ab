// Makes mistakes; prints what the SDK throws for each as JSON.
import { Runware } from "@runware/sdk-js";

const [url, apiKey, base64] = process.argv.slice(2);
const caught = (promise) => promise.then(() => null, (error) => error);

const runware = await Runware.initialize({ url, apiKey });
const [badFactor, unknownImage, badModelAsync, notOffered] = await Promise.all([
  caught(runware.upscaleGan({ inputImage: base64, upscaleFactor: 17 })),
  caught(runware.upscaleGan({ inputImage: "0c1c5d2f-8f0c-4f4e-9a57-27a1de1a5bfb" })),
  caught(runware.upscaleGan({ inputImage: base64, model: "runware:1@1", deliveryMethod: "async" })),
  caught(runware.removeImageBackground({ inputImage: base64 })),
]);
console.log(JSON.stringify({ badFactor, unknownImage, badModelAsync, notOffered }));
await runware.disconnect();
