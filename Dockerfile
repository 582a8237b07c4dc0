# The gate as a container. Linux only, on the host's own network:
#
#   docker build -t llamagate .
#   docker run -d --name llamagate --network host --read-only \
#     --cap-drop ALL --security-opt no-new-privileges \
#     --tmpfs /run/llamagate:mode=1777 \
#     -v /etc/llamagate:/etc/llamagate:ro llamagate
#
# Why --network host: the gate listens on the host's tailscale0 and reaches
# Ollama on the host's loopback. On Docker's own bridge it has neither, and every
# client would come from the bridge's address, which is not in `sources`. Never
# publish the port instead (-p): Docker's rules come before UFW's.
#
# /etc/llamagate holds config.json and keys.json and belongs to uid 1000, the
# image's user `node`. Mount the directory, not the file: `keys` replaces the
# file, and a mount of the file alone would go on showing the old one.
#
#   docker run --rm -v /etc/llamagate:/etc/llamagate llamagate keys add laptop
#   docker kill --signal HUP llamagate     # read the keys anew
#   docker run --rm --network host -v /etc/llamagate:/etc/llamagate:ro llamagate check
#
# Stopping: `docker stop` waits 10 s and then kills, which is less than the
# default drainTimeout; give it time with `docker stop -t 45 llamagate`.

FROM node:24-slim AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
# Without scripts: the only one fetches a Node, and the image is one.
RUN npm ci --ignore-scripts
COPY tsconfig.json tsconfig.build.json ./
COPY src src
RUN node_modules/.bin/tsc -p tsconfig.build.json
RUN npm prune --omit=dev --ignore-scripts

FROM node:24-slim
ENV NODE_ENV=production
WORKDIR /app
COPY --from=build /app/node_modules node_modules
COPY --from=build /app/dist dist
COPY package.json LICENSE ./
COPY bin bin
# For the admin socket (mode 0600). With --read-only a tmpfs lies over it, and some
# engines take its mode from here.
RUN install -d -m 1777 /run/llamagate
USER node

# Asks the running daemon through its own socket, which needs no key and is not on
# the network: healthy means that it listens somewhere. It fails where
# admin.socket is "off" or elsewhere; then turn it off with --no-healthcheck.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["node", "-e", "require('node:http').get({ socketPath: '/run/llamagate/admin.sock', path: '/status' }, (res) => { let body = ''; res.on('data', (chunk) => { body += chunk; }); res.on('end', () => process.exit(JSON.parse(body).listening.length > 0 ? 0 : 1)); }).on('error', () => process.exit(1))"]

ENTRYPOINT ["node", "/app/bin/llamagate.js"]
CMD ["serve", "--config", "/etc/llamagate/config.json"]
