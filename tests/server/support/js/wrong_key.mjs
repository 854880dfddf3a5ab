// Connects with a key that is not valid; prints what the SDK throws as JSON.
import { Runware } from "@runware/sdk-js";

const [url, apiKey] = process.argv.slice(2);

const runware = new Runware({ url, apiKey });
const error = await runware.ensureConnection().then(() => null, (reason) => reason);
console.log(JSON.stringify(error));
await runware.disconnect();
