/** Every file that is made from the code: `npm run docs`. */
import "../scripts/docs/settings.ts";
import "./conformance/document.ts";
import "./real/clients/document.ts";
import "./real/document.ts";
