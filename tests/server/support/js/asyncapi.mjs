// Reads an AsyncAPI document with the official parser; prints what it finds wrong as JSON.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
const wrong = diagnostics.filter(({ severity }) => severity < 2); // 0: error, 1: warning
console.log(JSON.stringify({ operations: document?.operations().all().map((one) => one.id()) ?? [], wrong }));
