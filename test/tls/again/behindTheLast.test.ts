import { tlsVariable } from "../../support/tlsRelay.ts";

process.env[tlsVariable] = "1";
await import("../../attack/behindTheLast.test.ts");
