/*
 * A stand-in for Ollama that is not what a benchmark measures: one thread, one
 * epoll, no allocation per token.
 *
 *   GET  anything            400 bytes of JSON
 *   POST /api/blobs/...      swallows the body and answers 201
 *   POST anything else       streams NDJSON lines, as the body asks:
 *        "tokens": how many (0: never an answer), "intervalUs": between two
 *        (0: as fast as they are taken), "size": bytes of a line,
 *        "report": 1 to print when the request came and when its client left
 *
 * Each line carries the time at which it was written. Prints its port first.
 */
#include "common.h"

enum { head_room = 8192, line_room = 128 * 1024, max_lines_a_turn = 64 };

struct stream {
	int fd;
	enum { reading_head, reading_body, swallowing, streaming, silent } state;
	/* The heap holds an entry for it: it cannot be given back yet. */
	int queued, gone;
	char in[head_room];
	size_t in_length;
	int64_t body_left;
	int64_t swallowed;
	int64_t tokens_left, interval_ns, next_ns, size;
	int report;
	/* What the socket did not take. */
	char *rest;
	size_t rest_length, rest_sent;
	int wants_write;
};

static int epoll;
static struct heap heap;
static char line[line_room + 512];

static const char tags_head[] =
	"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n"
	"Date: Mon, 05 Jan 2026 00:00:00 GMT\r\nContent-Length: 400\r\n\r\n";
static char tags[sizeof tags_head - 1 + 400];

static void say(const char *what)
{
	printf("%s %lld\n", what, (long long)now_ns());
	fflush(stdout);
}

static void watch(struct stream *s, int wants_write)
{
	if (s->wants_write == wants_write) return;
	s->wants_write = wants_write;
	struct epoll_event event = {.events = EPOLLIN | (wants_write ? EPOLLOUT : 0), .data.ptr = s};
	epoll_ctl(epoll, EPOLL_CTL_MOD, s->fd, &event);
}

static void release(struct stream *s)
{
	if (!s->gone) {
		if (s->report && (s->state == streaming || s->state == silent)) say("gone");
		close(s->fd);
		s->gone = 1;
	}
	if (s->queued) return;
	free(s->rest);
	free(s);
}

/* Sends, and keeps what is not taken. Returns 0 if the connection is lost. */
static int send_all(struct stream *s, const char *bytes, size_t length)
{
	if (s->rest_length > s->rest_sent) {
		/* Behind what waits already. */
		size_t waiting = s->rest_length - s->rest_sent;
		memmove(s->rest, s->rest + s->rest_sent, waiting);
		s->rest = grow(s->rest, waiting + length);
		memcpy(s->rest + waiting, bytes, length);
		s->rest_length = waiting + length;
		s->rest_sent = 0;
		return 1;
	}
	ssize_t sent = send(s->fd, bytes, length, MSG_NOSIGNAL);
	if (sent < 0) {
		if (errno != EAGAIN) return 0;
		sent = 0;
	}
	if ((size_t)sent == length) return 1;
	s->rest_length = length - sent;
	s->rest_sent = 0;
	s->rest = grow(s->rest, s->rest_length);
	memcpy(s->rest, bytes + sent, s->rest_length);
	watch(s, 1);
	return 1;
}

static int flush_rest(struct stream *s)
{
	while (s->rest_sent < s->rest_length) {
		ssize_t sent = send(s->fd, s->rest + s->rest_sent, s->rest_length - s->rest_sent, MSG_NOSIGNAL);
		if (sent < 0) return errno == EAGAIN;
		s->rest_sent += sent;
	}
	s->rest_length = s->rest_sent = 0;
	return 1;
}

/* One line as a chunk; the first in one packet with the head, as Go sends them. */
static int send_token(struct stream *s, int first)
{
	static const char head[] =
		"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
		"Date: Mon, 05 Jan 2026 00:00:00 GMT\r\nTransfer-Encoding: chunked\r\n\r\n";
	s->tokens_left -= 1;
	int last = s->tokens_left == 0;
	char json[256];
	int json_length = snprintf(json, sizeof json,
		"{\"model\":\"bench\",\"created_at\":\"2026-01-05T00:00:00Z\",\"t\":\"%020lld\",\"response\":\"",
		(long long)now_ns());
	const char *end = last ? "\",\"done\":true,\"total_duration\":1,\"eval_count\":1}\n" : "\",\"done\":false}\n";
	size_t end_length = strlen(end);
	int64_t padding = s->size - json_length - (int64_t)end_length;
	if (padding < 1) padding = 1;
	if (padding > line_room - 512) padding = line_room - 512;
	size_t length = first ? sizeof head - 1 : 0;
	memcpy(line, head, length);
	length += sprintf(line + length, "%zx\r\n", (size_t)json_length + padding + end_length);
	memcpy(line + length, json, json_length);
	length += json_length;
	memset(line + length, 'x', padding);
	length += padding;
	memcpy(line + length, end, end_length);
	length += end_length;
	memcpy(line + length, "\r\n", 2);
	length += 2;
	if (!send_all(s, line, length)) return 0;
	if (!last) return 1;
	s->state = reading_head;
	return send_all(s, "0\r\n\r\n", 5);
}

static int send_fast(struct stream *s, int first)
{
	for (int lines = 0; lines < max_lines_a_turn && s->state == streaming && s->rest_length == 0; lines++) {
		if (!send_token(s, first)) return 0;
		first = 0;
	}
	/* The rest in a later turn, so that others have theirs. */
	watch(s, s->state == streaming || s->rest_length > 0);
	return 1;
}

static int answer(struct stream *s, const char *body)
{
	s->tokens_left = number_in(body, "tokens", -1);
	if (s->tokens_left < 0) die("upstream: a POST that asks for nothing: %.200s", s->in);
	s->interval_ns = number_in(body, "intervalUs", 0) * 1000;
	s->size = number_in(body, "size", 0);
	s->report = number_in(body, "report", 0) != 0;
	if (s->report) say("came");
	if (s->tokens_left == 0) {
		s->state = silent;
		return 1;
	}
	s->state = streaming;
	if (s->interval_ns == 0) return send_fast(s, 1);
	if (!send_token(s, 1)) return 0;
	if (s->state == streaming) {
		s->next_ns = now_ns() + s->interval_ns;
		heap_push(&heap, s->next_ns, s);
		s->queued = 1;
	}
	return 1;
}

static int created(struct stream *s)
{
	char reply[256], body[64];
	int body_length = snprintf(body, sizeof body, "{\"bytes\":%lld}", (long long)s->swallowed);
	int length = snprintf(reply, sizeof reply,
		"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", body_length, body);
	s->state = reading_head;
	return send_all(s, reply, length);
}

/* What has been read so far. Returns 0 if the connection is to be closed. */
static int digest(struct stream *s)
{
	while (s->state == reading_head || s->state == reading_body) {
		s->in[s->in_length] = '\0';
		char *end = strstr(s->in, "\r\n\r\n");
		if (end == NULL) return s->in_length < head_room - 1;
		size_t head_length = end + 4 - s->in;
		if (strncmp(s->in, "POST ", 5) != 0) {
			if (!send_all(s, tags, sizeof tags)) return 0;
			memmove(s->in, s->in + head_length, s->in_length - head_length);
			s->in_length -= head_length;
			if (s->in_length == 0) return 1;
			continue;
		}
		char *chunked = strcasestr(s->in, "\r\ntransfer-encoding: chunked");
		if (chunked != NULL && chunked < end) {
			/* A short body is one chunk (Olla sends it so): what it asks for is found in the framing. */
			if (s->in_length < head_length + 5 || memcmp(s->in + s->in_length - 5, "0\r\n\r\n", 5) != 0)
				return s->in_length < head_room - 1;
			s->in_length = 0;
			return answer(s, s->in + head_length);
		}
		char *length_line = strcasestr(s->in, "\r\ncontent-length:");
		if (length_line == NULL || length_line > end) die("upstream: a POST without a length");
		int64_t length = strtoll(length_line + 17, NULL, 10);
		if (strncmp(s->in, "POST /api/blobs/", 16) == 0) {
			s->state = swallowing;
			s->swallowed = s->in_length - head_length;
			s->body_left = length - s->swallowed;
			s->in_length = 0;
			return s->body_left > 0 || created(s);
		}
		if (length > head_room - 1 - (int64_t)head_length) die("upstream: a body too long to be read");
		if (s->in_length < head_length + length) {
			s->state = reading_body;
			return 1;
		}
		s->in_length = 0;
		return answer(s, s->in + head_length);
	}
	return 1;
}

static int readable(struct stream *s)
{
	static char swallowed[256 * 1024];
	if (s->state == swallowing) {
		ssize_t got = recv(s->fd, swallowed, sizeof swallowed, 0);
		if (got <= 0) return got < 0 && errno == EAGAIN;
		s->swallowed += got;
		s->body_left -= got;
		return s->body_left > 0 || created(s);
	}
	ssize_t got = recv(s->fd, s->in + s->in_length, head_room - 1 - s->in_length, 0);
	if (got <= 0) return got < 0 && errno == EAGAIN;
	s->in_length += got;
	return digest(s);
}

static void take_new(int listener)
{
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0) return;
		no_delay(fd);
		struct stream *s = grow(NULL, sizeof *s);
		memset(s, 0, sizeof *s);
		s->fd = fd;
		struct epoll_event event = {.events = EPOLLIN, .data.ptr = s};
		epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
	}
}

int main(void)
{
	raise_descriptor_limit();
	memcpy(tags, tags_head, sizeof tags_head - 1);
	char *body = tags + sizeof tags_head - 1;
	memset(body, 'x', 400);
	static const char before[] = "{\"models\":[{\"name\":\"bench\",\"model\":\"";
	memcpy(body, before, sizeof before - 1);
	memcpy(body + 400 - 4, "\"}]}", 4);

	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t at_length = sizeof at;
	if (bind(listener, (struct sockaddr *)&at, sizeof at) != 0 || listen(listener, 4096) != 0 ||
	    getsockname(listener, (struct sockaddr *)&at, &at_length) != 0)
		die("upstream: %s", strerror(errno));
	epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = &listener};
	epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
	watch_parent(epoll);
	printf("%d\n", ntohs(at.sin_port));
	fflush(stdout);

	static struct epoll_event events[512];
	for (;;) {
		int count = wait_until_due(epoll, events, 512, &heap, now_ns() + 1000000000);
		for (int i = 0; i < count; i++) {
			if (events[i].data.ptr == NULL) return 0;
			if (events[i].data.ptr == &listener) {
				take_new(listener);
				continue;
			}
			struct stream *s = events[i].data.ptr;
			int alive = 1;
			if (events[i].events & EPOLLOUT) {
				alive = flush_rest(s);
				if (alive && s->rest_length == 0) {
					if (s->state == streaming && s->interval_ns == 0) alive = send_fast(s, 0);
					else watch(s, 0);
				}
			}
			if (alive && (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))) alive = readable(s);
			if (!alive) release(s);
		}
		int64_t now = now_ns();
		while (heap.count > 0 && heap.all[0].at_ns <= now) {
			struct stream *s = heap_pop(&heap).owner;
			s->queued = 0;
			if (s->gone) {
				release(s);
				continue;
			}
			if (s->state != streaming) continue;
			if (!send_token(s, 0)) {
				release(s);
				continue;
			}
			if (s->state != streaming) continue;
			/* By the clock and not by the last one: a late token makes no later ones. */
			s->next_ns += s->interval_ns;
			heap_push(&heap, s->next_ns, s);
			s->queued = 1;
		}
	}
}
