/** Pictures of other sites, by their addresses: this page may not read them, but the server may. */

import { fetchImage, nameOf } from "./server_images.js";

/** What a drop or a paste names. @param {DataTransfer} transfer @returns {string[]} */
export function addressesIn(transfer) {
  const shown = new DOMParser().parseFromString(transfer.getData("text/html"), "text/html");
  const pictures = [...shown.images].map((image) => image.getAttribute("src") ?? "");
  const listed = (transfer.getData("text/uri-list") || transfer.getData("text/plain")).split(/\r?\n/);
  const found = pictures.some(isAddress) ? pictures : listed;
  return [...new Set(found.map((each) => each.trim()).filter(isAddress))];
}

/** @param {string} text */
function isAddress(text) {
  return /^(https?:\/\/\S+|data:image\/[\w.+-]+;base64,[\w+/=]+)$/i.test(text.trim());
}

/**
 * @param {import("../client/connection.js").Connection} connection @param {string} address
 * @returns {Promise<File>} Rejects with a TilewireError if the server cannot fetch it.
 */
export async function fetchPicture(connection, address) {
  if (address.startsWith("data:")) {
    const bytes = Uint8Array.from(atob(address.split(",")[1]), (letter) => letter.charCodeAt(0));
    return new File([bytes], "pasted");
  }
  const { imageURL } = await connection.request({ taskType: "imageUpload", image: address });
  const response = await fetchImage(nameOf(imageURL));
  if (!response.ok) throw new Error("the server has it no longer");
  return new File([await response.blob()], titleOf(address));
}

/** @param {string} address */
function titleOf(address) {
  const { pathname, hostname } = new URL(address);
  try {
    return decodeURIComponent(pathname.split("/").at(-1) ?? "") || hostname;
  } catch {
    return hostname;
  }
}
