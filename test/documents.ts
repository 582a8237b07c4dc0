/** Every file that is made from the code: `npm run docs`. */
import "../src/config/document.ts";
import "./conformance/document.ts";
import "./real/document.ts";
