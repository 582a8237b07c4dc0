/* What the benchmark's load generator and its upstream share. */
#ifndef LLAMAGATE_BENCH_COMMON_H
#define LLAMAGATE_BENCH_COMMON_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static inline void die(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

static inline void *grow(void *memory, size_t bytes)
{
	void *grown = realloc(memory, bytes);
	if (grown == NULL) die("out of memory");
	return grown;
}

/* CLOCK_MONOTONIC in nanoseconds: the same for every process of the machine. */
static inline int64_t now_ns(void)
{
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return (int64_t)at.tv_sec * 1000000000 + at.tv_nsec;
}

/* As many descriptors as the system lets this process have. */
static inline void raise_descriptor_limit(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static inline void no_delay(int fd)
{
	int on = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* A min-heap of what is due, by time: who is next, in O(log n). */
struct due {
	int64_t at_ns;
	void *owner;
};
struct heap {
	struct due *all;
	size_t count, room;
};

static inline void heap_push(struct heap *heap, int64_t at_ns, void *owner)
{
	if (heap->count == heap->room) {
		heap->room = heap->room == 0 ? 1024 : 2 * heap->room;
		heap->all = grow(heap->all, heap->room * sizeof *heap->all);
	}
	size_t place = heap->count++;
	while (place > 0 && heap->all[(place - 1) / 2].at_ns > at_ns) {
		heap->all[place] = heap->all[(place - 1) / 2];
		place = (place - 1) / 2;
	}
	heap->all[place] = (struct due){at_ns, owner};
}

static inline struct due heap_pop(struct heap *heap)
{
	struct due first = heap->all[0], last = heap->all[--heap->count];
	size_t place = 0;
	for (;;) {
		size_t child = 2 * place + 1;
		if (child >= heap->count) break;
		if (child + 1 < heap->count && heap->all[child + 1].at_ns < heap->all[child].at_ns) child++;
		if (heap->all[child].at_ns >= last.at_ns) break;
		heap->all[place] = heap->all[child];
		place = child;
	}
	heap->all[place] = last;
	return first;
}

/* Sleeps until something happens or the first of the heap is due. */
static inline int wait_until_due(int epoll, struct epoll_event *events, int max, const struct heap *heap, int64_t latest_ns)
{
	int64_t until_ns = latest_ns;
	if (heap->count > 0 && heap->all[0].at_ns < until_ns) until_ns = heap->all[0].at_ns;
	int64_t left_ns = until_ns - now_ns();
	if (left_ns < 0) left_ns = 0;
	struct timespec left = {left_ns / 1000000000, left_ns % 1000000000};
	int count = epoll_pwait2(epoll, events, max, &left, NULL);
	if (count < 0 && errno != EINTR) die("epoll_pwait2: %s", strerror(errno));
	return count < 0 ? 0 : count;
}

/* The number behind `"name":` in a text, or the default. */
static inline int64_t number_in(const char *text, const char *name, int64_t otherwise)
{
	char label[64];
	snprintf(label, sizeof label, "\"%s\":", name);
	const char *at = strstr(text, label);
	return at == NULL ? otherwise : strtoll(at + strlen(label), NULL, 10);
}

/* An option of the command line: name=value. */
static inline const char *option(int argc, char **argv, const char *name, const char *otherwise)
{
	size_t length = strlen(name);
	for (int i = 1; i < argc; i++)
		if (strncmp(argv[i], name, length) == 0 && argv[i][length] == '=') return argv[i] + length + 1;
	return otherwise;
}

static inline int64_t number_option(int argc, char **argv, const char *name, int64_t otherwise)
{
	const char *value = option(argc, argv, name, NULL);
	return value == NULL ? otherwise : strtoll(value, NULL, 10);
}

/* Ends with whoever started it: they hold the other end of our standard input. */
static inline int watch_parent(int epoll)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLHUP, .data.ptr = NULL};
	/* A file or /dev/null cannot be watched, and then nobody waits for us to see its end. */
	return epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event);
}

#endif
