// Uploads an image and upscales it in every way that the SDK offers; prints the answers as JSON.
import { Runware } from "@runware/sdk-js";

const [url, apiKey, base64] = process.argv.slice(2);
const dataURI = `data:image/png;base64,${base64}`;
const common = { model: "tilewire:realesr-animevideov3@1", upscaleFactor: 2, outputFormat: "PNG" };

const runware = await Runware.initialize({ url, apiKey });
const upload = await runware.imageUpload({ image: dataURI });
const [byUUID, byDataURI, byBase64, byInputs, asynchronous, models] = await Promise.all([
  runware.upscaleGan({ ...common, inputImage: upload.imageUUID }),
  runware.upscaleGan({ ...common, inputImage: dataURI, outputType: "dataURI" }),
  runware.upscaleGan({ ...common, inputImage: base64, outputType: "base64Data", includeCost: true }),
  runware.upscale({ ...common, inputs: { image: dataURI } }),
  runware.upscale({ ...common, inputImage: dataURI, deliveryMethod: "async" }),
  runware.modelSearch({ search: "real-esrgan" }),
]);
console.log(JSON.stringify({ upload, byUUID, byDataURI, byBase64, byInputs, asynchronous, models }));
await runware.disconnect();
