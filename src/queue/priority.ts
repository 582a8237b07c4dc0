// The settings and the keys, which lie below the queue, name the classes too.
export { type Priority, priorities } from "../priority.ts";
