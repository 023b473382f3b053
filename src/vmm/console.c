/*
 * The console: what the serial port and hvc0 said, in one log, and input for the guest.
 *
 * Input goes to one port, the one behind the guest's /dev/console (the last console= of the kernel's command
 * line): a shell or login prompt there would otherwise see each line twice.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/bufferevent.h>

#include "vmm/console.h"

#define LOG_FULL "\n[provium: the console log is full; later output is not kept]\n"

static void read_cb(struct bufferevent *bev, void *arg);
static void event_cb(struct bufferevent *bev, short what, void *arg);

/* One open port; fd and bev are gone at EOF. */
struct port {
	struct console *console;
	struct bufferevent *bev;
	struct verdict_scanner scanner;
};

/* Owned by its VM. */
struct console {
	struct loop *loop;
	char *log;
	size_t len, size, consumed;
	bool full;
	struct port ports[CONSOLE_PORTS];
	enum console_port input;
	TAILQ_HEAD(, console_listener) listeners;
	struct console_listener *next;	/* in a walk: whom to tell next */
	void (*verdict)(void *arg, enum verdict v, const char *line);
	void *verdict_arg;
};

struct console *console_new(struct loop *l)
{
	struct console *c = xcalloc(1, sizeof(*c));

	c->loop = l;
	TAILQ_INIT(&c->listeners);
	for (size_t i = 0; i < CONSOLE_PORTS; i++)
		c->ports[i].console = c;
	return c;
}

static void port_close(struct port *p)
{
	if (!p->bev)
		return;
	bufferevent_free(p->bev);
	p->bev = NULL;
}

void console_free(struct console *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < CONSOLE_PORTS; i++)
		port_close(&c->ports[i]);
	free(c->log);
	free(c);
}

void console_attach(struct console *c, enum console_port port, int fd)
{
	struct port *p = &c->ports[port];

	port_close(p);
	memset(&p->scanner, 0, sizeof(p->scanner));
	evutil_make_socket_nonblocking(fd);
	p->bev = bufferevent_socket_new(loop_base(c->loop), fd, BEV_OPT_CLOSE_ON_FREE);
	INVARIANT(p->bev);
	bufferevent_setcb(p->bev, read_cb, NULL, event_cb, p);
	bufferevent_enable(p->bev, EV_READ | EV_WRITE);
}

void console_set_input(struct console *c, enum console_port port)
{
	c->input = port;
}

void console_on_verdict(struct console *c, void (*fn)(void *arg, enum verdict v, const char *line), void *arg)
{
	c->verdict = fn;
	c->verdict_arg = arg;
}

/* Listeners may remove themselves and others while they are told. */
static void tell(struct console *c, bool ended, size_t from)
{
	struct console_listener *l;

	for (l = TAILQ_FIRST(&c->listeners); l; l = c->next) {
		c->next = TAILQ_NEXT(l, entry);
		if (!ended)
			l->grew(l, c, from);
		else if (l->ended)
			l->ended(l, c);
	}
	c->next = NULL;
}

static void log_add(struct console *c, const char *data, size_t len)
{
	if (c->full || len == 0)
		return;
	if (c->len + len > CONSOLE_LOG_MAX) {
		c->full = true;
		data = LOG_FULL;
		len = sizeof(LOG_FULL) - 1;
	}
	if (c->len + len > c->size) {
		c->size = (c->len + len) * 2;
		c->log = xrealloc(c->log, c->size);
	}
	memcpy(c->log + c->len, data, len);
	c->len += len;
}

static void port_output(struct port *p, const char *data, size_t len)
{
	struct console *c = p->console;
	size_t from = c->len, n;
	enum verdict v;

	log_add(c, data, len);
	if (c->len > from)
		tell(c, false, from);
	while (len > 0) {
		n = verdict_scan(&p->scanner, data, len, &v);
		if (v != VERDICT_NONE && c->verdict)
			c->verdict(c->verdict_arg, v, p->scanner.line);
		data += n;
		len -= n;
	}
}

static void read_cb(struct bufferevent *bev, void *arg)
{
	struct port *p = arg;
	char buf[16384];
	size_t n;

	while (p->bev == bev && (n = bufferevent_read(bev, buf, sizeof(buf))) > 0)
		port_output(p, buf, n);
}

static void event_cb(struct bufferevent *bev, short what, void *arg)
{
	struct port *p = arg;

	(void)bev;
	if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR))
		port_close(p);
}

void console_detach(struct console *c)
{
	char buf[16384];
	ssize_t n;

	for (size_t i = 0; i < CONSOLE_PORTS; i++) {
		struct port *p = &c->ports[i];

		if (p->bev)
			read_cb(p->bev, p);
		while (p->bev && (n = read(bufferevent_getfd(p->bev), buf, sizeof(buf))) > 0)
			port_output(p, buf, (size_t)n);
		port_close(p);
	}
	tell(c, true, c->len);
}

void console_restore(struct console *c, const char *log, size_t len, size_t consumed)
{
	for (size_t i = 0; i < CONSOLE_PORTS; i++)
		port_close(&c->ports[i]);
	tell(c, true, c->len);
	c->len = 0;
	c->full = false;
	log_add(c, log, len);
	c->consumed = consumed < c->len ? consumed : c->len;
}

size_t *console_consumed(struct console *c)
{
	return &c->consumed;
}

const char *console_log(const struct console *c, size_t *len)
{
	*len = c->len;
	return c->log ? c->log : "";
}

int console_write(struct console *c, const void *data, size_t len)
{
	struct port *p = &c->ports[c->input];

	if (!p->bev)
		return -ENOTCONN;
	return bufferevent_write(p->bev, data, len) < 0 ? -EIO : 0;
}

void console_listen(struct console *c, struct console_listener *l)
{
	TAILQ_INSERT_TAIL(&c->listeners, l, entry);
}

void console_unlisten(struct console *c, struct console_listener *l)
{
	if (c->next == l)
		c->next = TAILQ_NEXT(l, entry);
	TAILQ_REMOVE(&c->listeners, l, entry);
}

/* The bytes of the escape sequence that starts at p (at least 1). */
static size_t escape_len(const char *p, size_t n)
{
	size_t i = 2;

	if (n < 2)
		return n;
	if (p[1] == '[') {			/* CSI: parameters, then one final byte */
		while (i < n && (unsigned char)p[i] >= 0x20 && (unsigned char)p[i] < 0x40)
			i++;
		return i < n ? i + 1 : n;
	}
	if (p[1] == ']') {			/* OSC: ends with BEL or ESC \ */
		while (i < n && p[i] != '\a' && p[i] != '\033' && p[i] != '\n')
			i++;
		if (i + 1 < n && p[i] == '\033' && p[i + 1] == '\\')
			return i + 2;
		return i < n && p[i] == '\a' ? i + 1 : i;
	}
	while (i - 1 < n && (unsigned char)p[i - 1] >= 0x20 && (unsigned char)p[i - 1] < 0x30)
		i++;				/* intermediates, as in ESC ( B */
	return i < n ? i : n;
}

char *console_strip(const char *text, size_t len)
{
	char *out = xmalloc(len + 1), *o = out;

	for (size_t i = 0; i < len; i++) {
		unsigned char ch = (unsigned char)text[i];

		if (ch == '\033')
			i += escape_len(text + i, len - i) - 1;
		else if (ch >= 0x20 ? ch != 0x7f : ch == '\n' || ch == '\t')
			*o++ = (char)ch;
	}
	*o = 0;
	return out;
}

char *console_tail(const struct console *c, size_t max)
{
	const char *from = c->log, *end, *nl;
	char *text;
	size_t n;

	if (!c->log)
		return xstrdup("");
	/* Escapes are stripped first from more than is asked for: what remains is then cut. */
	end = c->log + c->len;
	if (c->len > max * 4)
		from = end - max * 4;
	text = console_strip(from, (size_t)(end - from));
	n = strlen(text);
	if (n <= max && from == c->log)
		return text;
	from = n > max ? text + n - max : text;
	if (from == text || from[-1] != '\n') {
		nl = strchr(from, '\n');
		if (nl && nl[1])
			from = nl + 1;
	}
	memmove(text, from, strlen(from) + 1);
	return text;
}
