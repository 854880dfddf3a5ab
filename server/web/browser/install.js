/** The page as an app: it opens without a network, and says then that the server cannot be reached. */

export async function install() {
  try {
    await navigator.serviceWorker?.register("service-worker.js"); // there on HTTPS and localhost only
  } catch {
    // Without it the page does all it does, online.
  }
}
