# The gate as a container. Linux only, on the host's own network. In this order, as
# it does not start without a key that it can read:
#
#   docker build -t llamagate .
#   sudo install -d -o 65532 -g 65532 -m 0700 /etc/llamagate
#   echo '{}' | sudo install -o 65532 -g 65532 -m 0600 /dev/stdin /etc/llamagate/config.json
#   docker run --rm -v /etc/llamagate:/etc/llamagate llamagate keys add laptop
#   docker run -d --name llamagate --network host --read-only \
#     --cap-drop ALL --security-opt no-new-privileges --stop-timeout 45 \
#     --tmpfs /run/llamagate:mode=1777 \
#     -v /etc/llamagate:/etc/llamagate:ro llamagate
#
# docker/compose.yaml says the same, and docker/compose.sidecar.yaml has Tailscale
# in a container too.
#
# Why --network host: the gate listens on the host's tailscale0 and reaches
# Ollama on the host's loopback. On Docker's own bridge it has neither, and every
# client would come from the bridge's address, which is not in `sources`. Never
# publish the port instead (-p): Docker's rules come before UFW's.
#
# /etc/llamagate belongs to uid 65532, which the image runs as: it makes keys there,
# and reads them. Mount the directory, not the file: `keys` replaces the file, and a
# mount of the file alone would go on showing the old one. After each change of keys:
#
#   docker kill --signal HUP llamagate     # read the keys anew
#   docker run --rm --network host -v /etc/llamagate:/etc/llamagate:ro llamagate check
#
# Stopping: without --stop-timeout Docker kills after 10 s, which is less than the
# default drainTimeout.

# Any image with npm and Node 22.19 to 24 at /usr/local/bin/node, its licence at
# /usr/local/LICENSE, and one with the C and C++ libraries that this Node needs. The
# second needs no shell and no package manager, and this one has neither.
ARG BUILD_IMAGE=node:24-slim
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12

FROM ${BUILD_IMAGE} AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
# Of the developers' packages only what builds, as package-lock.json has it. Without
# scripts: the only one that is wanted fetches a Node, and the image has one.
RUN node --eval 'const { devDependencies: { esbuild }, ...rest } = require("./package.json"); \
		fs.writeFileSync("package.json", JSON.stringify({ ...rest, devDependencies: { esbuild } }))' \
	&& npm ci --ignore-scripts
COPY scripts/build scripts/build
COPY src src
RUN npm run --silent build
COPY LICENSE package.json ./
COPY bin bin
# All that the last stage gets. /run/llamagate is for the admin socket (mode 0600);
# with --read-only a tmpfs lies over it, and some engines take its mode from here.
RUN mkdir -p /image/app /image/usr/local/bin /image/run/llamagate \
	&& cp -a bin dist package.json LICENSE /image/app/ \
	&& cp /usr/local/bin/node /image/usr/local/bin/node \
	&& cp /usr/local/LICENSE /image/usr/local/LICENSE \
	&& chmod 1777 /image/run/llamagate

FROM ${RUNTIME_IMAGE}
COPY --from=build /image/ /
ENV NODE_ENV=production
WORKDIR /app
# A number, so that no image has to know a name for it.
USER 65532:65532

# Asks the running daemon through its own socket, which needs no key and is not on
# the network: healthy means that it listens somewhere. It fails where
# admin.socket is "off" or elsewhere; then turn it off with --no-healthcheck.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["/usr/local/bin/node", "-e", "require('node:http').get({ socketPath: '/run/llamagate/admin.sock', path: '/status' }, (res) => { let body = ''; res.on('data', (chunk) => { body += chunk; }); res.on('end', () => process.exit(JSON.parse(body).listening.length > 0 ? 0 : 1)); }).on('error', () => process.exit(1))"]

# Node refuses threads, addons and the inspector. `serve` gives up starting programs
# before it does anything, and writing once it has started; other commands need both.
# From Node 25 on it takes --allow-net too.
ENTRYPOINT ["/usr/local/bin/node", "--max-semi-space-size=4", "--single-threaded-gc", "--permission", "--disable-warning=PERM0002", "--allow-fs-read=*", "--allow-fs-write=*", "--allow-child-process", "/app/bin/llamagate.js"]
CMD ["serve", "--config", "/etc/llamagate/config.json"]
