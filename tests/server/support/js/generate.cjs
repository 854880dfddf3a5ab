// Makes a client of an AsyncAPI document with AsyncAPI's own generator.
const Generator = require("@asyncapi/generator");

const [document, template, target] = process.argv.slice(2);
const options = { forceWrite: true, templateParams: { server: "this" } };
new Generator(template, target, options).generateFromFile(document).catch((error) => {
  console.error(error);
  process.exit(1);
});
