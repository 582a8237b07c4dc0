/** What usually has a port, where anyone who reaches it need not say who they are, or a password is all that keeps them out. */
const services: Readonly<Record<number, string>> = {
	111: "rpcbind",
	139: "Windows shares",
	445: "Windows shares",
	1234: "LM Studio",
	2049: "NFS",
	2375: "Docker's API",
	2379: "etcd",
	3000: "Open WebUI",
	3306: "MySQL",
	5432: "PostgreSQL",
	5433: "PostgreSQL",
	5900: "VNC",
	5984: "CouchDB",
	6333: "Qdrant",
	6379: "Redis",
	7474: "Neo4j",
	7860: "Gradio",
	8000: "vLLM or Chroma",
	8080: "Open WebUI",
	8123: "ClickHouse",
	8188: "ComfyUI",
	8265: "Ray",
	8888: "Jupyter",
	9000: "ClickHouse or MinIO",
	9090: "Prometheus",
	9100: "Prometheus's node exporter",
	9200: "Elasticsearch",
	10250: "kubelet",
	11211: "memcached",
	11434: "Ollama",
	19530: "Milvus",
	27017: "MongoDB",
};

/** Programs that are known by their name, whatever their port. */
const programs: ReadonlyMap<string, string> = new Map([
	["ollama", "Ollama"],
	["open-webui", "Open WebUI"],
	["postgres", "PostgreSQL"],
	["mysqld", "MySQL"],
	["mariadbd", "MySQL"],
	["redis-server", "Redis"],
	["mongod", "MongoDB"],
	["memcached", "memcached"],
	["etcd", "etcd"],
	["dockerd", "Docker's API"],
]);

/** The name of a service that is not to be open to everybody, as far as its port or its program tells. */
export function unguardedService(
	port: number,
	names: readonly string[] = [],
): string | undefined {
	for (const name of names) {
		const known = programs.get(name);
		if (known !== undefined) return known;
	}
	return services[port];
}
