/*
 * The benchmark's load: one thread, one epoll. Options are name=value.
 *
 *   mode=streams   streams= tokens= intervalUs= size= warmUpMs= measureMs= cold=0|1 path=
 *       token streams on their own connections, one after the other on each;
 *       cold: each on a new connection. Only streams that begin after the
 *       warm-up count.
 *   mode=requests  connections= rate=(0: as fast as they are answered) seconds=
 *       path= fresh=0|1 finish=0|1   small requests; fresh: each on a new connection;
 *       finish: those that are under way at the end are waited for, and not cut
 *   mode=upload    bytes= path=
 *   mode=cancel    tries= after=tokens (0: before anything has come)
 *
 * Everywhere: port= key= from=ADDRESS sources=COUNT (spreads connections over
 * so many loopback addresses, from that one on).
 * Prints one JSON object; times are nanoseconds.
 */
#include "common.h"

enum { text_room = 8192, piece = 256 * 1024 };

struct times {
	int64_t *all;
	size_t count, room;
};

static void note(struct times *times, int64_t ns)
{
	if (times->count == times->room) {
		times->room = times->room == 0 ? 4096 : 2 * times->room;
		times->all = grow(times->all, times->room * sizeof *times->all);
	}
	times->all[times->count++] = ns;
}

static int by_size(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return (x > y) - (x < y);
}

/* Quantiles by nearest rank. */
static void print_times(const char *name, struct times *times)
{
	static const struct { const char *name; double share; } marks[] = {
		{"p50", 0.5}, {"p90", 0.9}, {"p95", 0.95}, {"p99", 0.99}, {"p999", 0.999}, {"max", 1.0}};
	qsort(times->all, times->count, sizeof *times->all, by_size);
	printf("\"%s\":{\"count\":%zu", name, times->count);
	for (size_t i = 0; i < sizeof marks / sizeof *marks && times->count > 0; i++) {
		size_t rank = (size_t)(marks[i].share * times->count + 0.9999999);
		if (rank > 0) rank--;
		if (rank >= times->count) rank = times->count - 1;
		printf(",\"%s\":%lld", marks[i].name, (long long)times->all[rank]);
	}
	printf("}");
}

struct client {
	int fd;
	int number;
	enum { closed, connecting, idle, waiting } state;
	int queued;
	int64_t asked_ns;
	int64_t received;
	int checked;
	/* Where in a chunked reply it is, and what of the chunk is to come. */
	enum { in_head, in_size, in_data, behind_data, in_end } part;
	size_t chunk_left, line_length;
	char text[text_room];
	size_t length;
};

static int epoll, port, sources, argc;
static uint32_t from_address;
static char **argv;
static const char *key;
static int64_t connects, errors;
static struct times first_token, chunk;

static void connect_client(struct client *c)
{
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0) die("client: %s", strerror(errno));
	no_delay(c->fd);
	if (sources > 0) {
		int on = 1;
		setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
		struct sockaddr_in from = {.sin_family = AF_INET,
			.sin_addr.s_addr = htonl(from_address + c->number % sources)};
		if (bind(c->fd, (struct sockaddr *)&from, sizeof from) != 0) die("client: %s", strerror(errno));
	}
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	if (connect(c->fd, (struct sockaddr *)&to, sizeof to) != 0 && errno != EINPROGRESS) die("client: %s", strerror(errno));
	struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
	epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
	c->state = connecting;
	c->length = 0;
	c->checked = 0;
	connects += 1;
}

static void close_client(struct client *c)
{
	if (c->state == closed) return;
	close(c->fd);
	c->state = closed;
}

/* Returns 0 if the connection was closed before it could ask. */
static int send_request(struct client *c, const char *request, size_t length)
{
	c->received = 0;
	c->checked = 0;
	c->length = 0;
	c->part = in_head;
	c->chunk_left = c->line_length = 0;
	c->state = waiting;
	/* A request fits into an empty socket. */
	if (send(c->fd, request, length, MSG_NOSIGNAL) != (ssize_t)length) {
		errors += 1;
		close_client(c);
		return 0;
	}
	return 1;
}

static size_t make_head(char *into, size_t room, const char *method, const char *path, int64_t length)
{
	int written = snprintf(into, room, "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n", method, path, port);
	if (key[0] != '\0') written += snprintf(into + written, room - written, "Authorization: Bearer %s\r\n", key);
	if (length >= 0)
		written += snprintf(into + written, room - written,
			"Content-Type: application/json\r\nContent-Length: %lld\r\n", (long long)length);
	written += snprintf(into + written, room - written, "\r\n");
	return written;
}

static size_t make_stream_request(char *into, size_t room, int64_t tokens, int64_t interval_us, int64_t size, int report)
{
	char body[256];
	int length = snprintf(body, sizeof body,
		"{\"model\":\"bench\",\"prompt\":\"tell me\",\"bench\":{\"tokens\":%lld,\"intervalUs\":%lld,\"size\":%lld,\"report\":%d}}",
		(long long)tokens, (long long)interval_us, (long long)size, report);
	size_t head = make_head(into, room, "POST", option(argc, argv, "path", "/api/generate"), length);
	memcpy(into + head, body, length);
	return head + length;
}

static void expect_ok(struct client *c, const char *bytes, size_t length)
{
	if (c->checked || length < 12) return;
	c->checked = 1;
	if (strncmp(bytes, "HTTP/1.1 200", 12) != 0) die("client: answered with %.60s", bytes);
}

/* ---- streams ---- */

static int64_t tokens_in_all, bytes_in_all;

/*
 * Takes the chunks' framing off: a gate may put its boundaries anywhere, in the
 * middle of a time stamp too. Returns how many bytes of data were put into
 * `into`; `ended` is set at the reply's end.
 */
static size_t decode(struct client *c, const char *bytes, size_t length, char *into, int *ended)
{
	size_t put = 0;
	for (size_t at = 0; at < length && !*ended;) {
		if (c->part == in_data) {
			size_t piece_length = c->chunk_left < length - at ? c->chunk_left : length - at;
			memcpy(into + put, bytes + at, piece_length);
			put += piece_length;
			at += piece_length;
			c->chunk_left -= piece_length;
			if (c->chunk_left == 0) c->part = behind_data;
			continue;
		}
		char sign = bytes[at++];
		if (sign == '\r') continue;
		if (sign != '\n') {
			c->line_length += 1;
			if (c->part == in_size) {
				int digit = sign <= '9' ? sign - '0' : (sign | 0x20) - 'a' + 10;
				if (digit < 0 || digit > 15) die("client: a chunk's size is no number");
				c->chunk_left = 16 * c->chunk_left + digit;
			}
			continue;
		}
		int empty = c->line_length == 0;
		c->line_length = 0;
		if (c->part == in_head) {
			if (empty) c->part = in_size;
		} else if (c->part == behind_data) c->part = in_size;
		else if (c->part == in_size) c->part = c->chunk_left > 0 ? in_data : in_end;
		else if (empty) *ended = 1;
	}
	return put;
}

/* Reads what has come. Returns 1 at the stream's end, -1 if the connection is lost. */
static int read_stream(struct client *c, int64_t tokens, int counts)
{
	static char bytes[piece], data[text_room + piece];
	for (;;) {
		ssize_t got = recv(c->fd, bytes, piece, 0);
		int64_t at_ns = now_ns();
		if (got < 0 && errno == EAGAIN) return 0;
		if (got <= 0) return -1;
		bytes_in_all += got;
		expect_ok(c, bytes, got);
		/* What may be the first half of a time stamp stands in front. */
		memcpy(data, c->text, c->length);
		int ended = 0;
		size_t length = c->length + decode(c, bytes, got, data + c->length, &ended);
		char *from = data, *end = data + length;
		for (;;) {
			char *stamp = memmem(from, end - from, "\"t\":\"", 5);
			if (stamp == NULL || end - stamp < 26) break;
			c->received += 1;
			tokens_in_all += 1;
			if (counts) {
				if (c->received == 1) note(&first_token, at_ns - c->asked_ns);
				else note(&chunk, at_ns - strtoll(stamp + 5, NULL, 10));
			}
			from = stamp + 26;
		}
		if (ended) {
			if (c->received != tokens)
				die("client: a stream ended after %lld of %lld tokens", (long long)c->received, (long long)tokens);
			return 1;
		}
		c->length = end - from;
		if (c->length > 32) c->length = 32;
		memcpy(c->text, end - c->length, c->length);
	}
}

static void run_streams(void)
{
	int64_t streams = number_option(argc, argv, "streams", 1);
	int64_t tokens = number_option(argc, argv, "tokens", 10);
	int64_t interval_us = number_option(argc, argv, "intervalUs", 20000);
	int64_t size = number_option(argc, argv, "size", 0);
	int cold = number_option(argc, argv, "cold", 0);
	char request[1024];
	size_t request_length = make_stream_request(request, sizeof request, tokens, interval_us, size, 0);
	int64_t start_ns = now_ns();
	int64_t measure_ns = start_ns + number_option(argc, argv, "warmUpMs", 500) * 1000000;
	int64_t end_ns = measure_ns + number_option(argc, argv, "measureMs", 1000) * 1000000;

	struct client *clients = calloc(streams, sizeof *clients);
	if (clients == NULL) die("out of memory");
	/* Spread out over a stream's length, so that neither starts nor tokens fall together. */
	int64_t spread_ns = tokens * interval_us * 1000;
	if (spread_ns > (measure_ns - start_ns) / 2) spread_ns = (measure_ns - start_ns) / 2;
	static struct heap heap;
	for (int64_t i = 0; i < streams; i++) {
		clients[i].number = i;
		heap_push(&heap, start_ns + spread_ns * i / streams, &clients[i]);
	}
	int64_t running = streams, lost = 0;
	int64_t counted_from_ns = 0, counted_tokens = 0, counted_bytes = 0;
	static struct epoll_event events[512];
	int64_t heard_ns = start_ns, heard_bytes = 0;
	while (running > 0) {
		if (bytes_in_all != heard_bytes) {
			heard_bytes = bytes_in_all;
			heard_ns = now_ns();
		}
		/* Bytes may take their time: what tells that a stream will not end is silence. */
		if (now_ns() > heard_ns + 20LL * 1000000000 + spread_ns + interval_us * 1000) die("client: %lld streams did not end", (long long)running);
		int count = wait_until_due(epoll, events, 512, &heap, now_ns() + 100000000);
		while (heap.count > 0 && heap.all[0].at_ns <= now_ns()) {
			struct client *c = heap_pop(&heap).owner;
			c->asked_ns = now_ns();
			connect_client(c);
		}
		if (counted_from_ns == 0 && now_ns() >= measure_ns) {
			counted_from_ns = now_ns();
			counted_tokens = tokens_in_all;
			counted_bytes = bytes_in_all;
		}
		for (int i = 0; i < count; i++) {
			struct client *c = events[i].data.ptr;
			if (c->state == connecting && (events[i].events & EPOLLOUT)) {
				if (!cold) c->asked_ns = now_ns();
				if (!send_request(c, request, request_length)) {
					lost += 1;
					running -= 1;
				}
			}
			if (c->state == closed || !(events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))) continue;
			int end = read_stream(c, tokens, c->asked_ns >= measure_ns);
			if (end == 0) continue;
			if (end < 0) {
				close_client(c);
				lost += 1;
				running -= 1;
				continue;
			}
			/* Each has one at least that began in time. */
			if (c->asked_ns >= measure_ns && now_ns() >= end_ns) {
				close_client(c);
				running -= 1;
			} else if (cold) {
				close_client(c);
				c->asked_ns = now_ns();
				connect_client(c);
			} else {
				c->asked_ns = now_ns();
				if (!send_request(c, request, request_length)) {
					lost += 1;
					running -= 1;
				}
			}
		}
	}
	double seconds = (now_ns() - counted_from_ns) / 1e9;
	printf("{");
	print_times("firstToken", &first_token);
	printf(",");
	print_times("chunk", &chunk);
	printf(",\"received\":%lld,\"tokensPerSecond\":%.1f,\"bytesPerSecond\":%.0f,\"lost\":%lld}\n",
		(long long)tokens_in_all, (tokens_in_all - counted_tokens) / seconds,
		(bytes_in_all - counted_bytes) / seconds, (long long)lost);
}

/* ---- requests ---- */

static int64_t statuses[600];

/* Reads one reply with a length. Returns its status, 0 if there is more to come, -1 if the connection is lost. */
static int read_reply(struct client *c, int *closes)
{
	for (;;) {
		ssize_t got = recv(c->fd, c->text + c->length, text_room - 1 - c->length, 0);
		if (got < 0 && errno == EAGAIN) return 0;
		if (got <= 0) return -1;
		c->length += got;
		c->text[c->length] = '\0';
		char *end = strstr(c->text, "\r\n\r\n");
		if (end == NULL) continue;
		char *at = strcasestr(c->text, "content-length:");
		if (at == NULL || at > end) die("client: a reply without a length: %.200s", c->text);
		size_t body = strtoul(at + 15, NULL, 10);
		if (c->length < (size_t)(end + 4 - c->text) + body) continue;
		char *close_at = strcasestr(c->text, "\r\nconnection: close");
		*closes = close_at != NULL && close_at < end;
		return atoi(c->text + 9);
	}
}

static void run_requests(void)
{
	int64_t connections = number_option(argc, argv, "connections", 32);
	int64_t rate = number_option(argc, argv, "rate", 0);
	int fresh = number_option(argc, argv, "fresh", 0);
	int finish = number_option(argc, argv, "finish", 0);
	char request[1024];
	size_t request_length = make_head(request, sizeof request, "GET", option(argc, argv, "path", "/api/tags"), -1);
	int64_t start_ns = now_ns(), end_ns = start_ns + number_option(argc, argv, "seconds", 1) * 1000000000;
	struct client *clients = calloc(connections, sizeof *clients);
	struct client **ready = calloc(connections, sizeof *ready);
	if (clients == NULL || ready == NULL) die("out of memory");
	int64_t ready_count = 0, sent = 0, answered = 0;
	struct times latency = {0};
	for (int64_t i = 0; i < connections; i++) {
		clients[i].number = i;
		connect_client(&clients[i]);
	}
	static struct heap none;
	static struct epoll_event events[512];
	int64_t last_ns = end_ns + (finish ? 2000000000 : 0);
	while (now_ns() < end_ns || (finish && ready_count < connections && now_ns() < last_ns)) {
		int64_t next_ns = now_ns() + (rate > 0 ? 200000 : 100000000);
		int64_t until_ns = now_ns() < end_ns ? end_ns : last_ns;
		int count = wait_until_due(epoll, events, 512, &none, next_ns < until_ns ? next_ns : until_ns);
		for (int i = 0; i < count; i++) {
			struct client *c = events[i].data.ptr;
			if (c->state == connecting && (events[i].events & (EPOLLHUP | EPOLLERR))) {
				errors += 1;
				close_client(c);
				connect_client(c);
				continue;
			}
			if (c->state == connecting && (events[i].events & EPOLLOUT)) {
				c->state = idle;
				ready[ready_count++] = c;
			}
			if (!(events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) || c->state == closed) continue;
			int closes = 0;
			int was_idle = c->state == idle;
			int status = was_idle ? -1 : read_reply(c, &closes);
			if (was_idle) {
				char byte;
				if (recv(c->fd, &byte, 1, MSG_PEEK) < 0 && errno == EAGAIN) continue;
				for (int64_t n = 0; n < ready_count; n++)
					if (ready[n] == c) ready[n] = ready[--ready_count];
			}
			if (status == 0) continue;
			if (status > 0) {
				answered += 1;
				if (status < 600) statuses[status] += 1;
				note(&latency, now_ns() - c->asked_ns);
			} else if (!was_idle) errors += 1;
			if (status < 0 || closes || fresh) {
				close_client(c);
				connect_client(c);
			} else {
				c->state = idle;
				ready[ready_count++] = c;
			}
		}
		int64_t allowed = rate == 0 ? INT64_MAX : (int64_t)((now_ns() - start_ns) / 1e9 * rate);
		while (ready_count > 0 && sent < allowed && (!finish || now_ns() < end_ns)) {
			struct client *c = ready[--ready_count];
			c->asked_ns = now_ns();
			sent += 1;
			if (!send_request(c, request, request_length)) connect_client(c);
		}
		/* What could not be sent in time is not made up for. */
		if (rate > 0 && sent < allowed) sent = allowed;
	}
	double seconds = (now_ns() - start_ns) / 1e9;
	printf("{");
	print_times("latency", &latency);
	printf(",\"answered\":%lld,\"answeredPerSecond\":%.1f,\"connects\":%lld,\"errors\":%lld,\"statuses\":{",
		(long long)answered, answered / seconds, (long long)connects, (long long)errors);
	const char *comma = "";
	for (int status = 0; status < 600; status++)
		if (statuses[status] > 0) {
			printf("%s\"%d\":%lld", comma, status, (long long)statuses[status]);
			comma = ",";
		}
	printf("}}\n");
}

/* ---- one at a time, blocking ---- */

static int open_blocking(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0) die("client: %s", strerror(errno));
	no_delay(fd);
	return fd;
}

static void write_whole(int fd, const char *bytes, size_t length)
{
	while (length > 0) {
		ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);
		if (sent < 0) die("client: %s", strerror(errno));
		bytes += sent;
		length -= sent;
	}
}

static void run_upload(void)
{
	int64_t bytes = number_option(argc, argv, "bytes", 1 << 20);
	static char data[piece];
	char head[1024];
	size_t head_length = make_head(head, sizeof head, "POST", option(argc, argv, "path", "/api/blobs/x"), bytes);
	int64_t start_ns = now_ns();
	int fd = open_blocking();
	write_whole(fd, head, head_length);
	for (int64_t left = bytes; left > 0;) {
		size_t length = left < piece ? left : piece;
		write_whole(fd, data, length);
		left -= length;
	}
	char reply[1024];
	ssize_t got = recv(fd, reply, sizeof reply - 1, 0);
	reply[got > 0 ? got : 0] = '\0';
	if (strncmp(reply, "HTTP/1.1 201", 12) != 0) die("client: the upload was answered with %.60s", reply);
	printf("{\"bytes\":%lld,\"ns\":%lld}\n", (long long)bytes, (long long)(now_ns() - start_ns));
}

/* Prints a line for each connection it closes: the time just before. */
static void run_cancel(void)
{
	int64_t tries = number_option(argc, argv, "tries", 20), after = number_option(argc, argv, "after", 0);
	char request[1024], reply[text_room];
	size_t length = make_stream_request(request, sizeof request, after > 0 ? 1000000 : 0, 20000, 0, 1);
	for (int64_t n = 0; n < tries; n++) {
		int fd = open_blocking();
		write_whole(fd, request, length);
		struct timespec pause = {0, 30000000};
		nanosleep(&pause, NULL);
		for (int64_t reads = 0; reads < after; reads++)
			if (recv(fd, reply, sizeof reply, 0) <= 0) die("client: the stream ended");
		printf("closed %lld\n", (long long)now_ns());
		close(fd);
		nanosleep(&pause, NULL);
	}
}

int main(int count, char **values)
{
	argc = count;
	argv = values;
	raise_descriptor_limit();
	epoll = epoll_create1(EPOLL_CLOEXEC);
	port = number_option(argc, argv, "port", 0);
	const char *from = option(argc, argv, "from", "");
	struct in_addr first;
	sources = from[0] == '\0' ? 0 : number_option(argc, argv, "sources", 1);
	if (sources > 0) {
		if (inet_pton(AF_INET, from, &first) != 1) die("client: from is no address: %s", from);
		from_address = ntohl(first.s_addr);
	}
	key = option(argc, argv, "key", "");
	const char *mode = option(argc, argv, "mode", "");
	if (strcmp(mode, "streams") == 0) run_streams();
	else if (strcmp(mode, "requests") == 0) run_requests();
	else if (strcmp(mode, "upload") == 0) run_upload();
	else if (strcmp(mode, "cancel") == 0) run_cancel();
	else die("client: mode is streams, requests, upload or cancel");
	return 0;
}
