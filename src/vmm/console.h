/*
 * The console from the inside of src/vmm: who attaches its ports.
 */
#ifndef PROVIUM_VMM_CONSOLE_H
#define PROVIUM_VMM_CONSOLE_H

#include "vmm/verdict.h"
#include "vmm/vmm.h"

enum console_port { CONSOLE_SERIAL, CONSOLE_HVC, CONSOLE_PORTS };

#define CONSOLE_LOG_MAX ((size_t)64 << 20)

struct console *console_new(struct loop *l);
void console_free(struct console *c);
/* A port of a guest that powers on; owns fd. The log goes on. */
void console_attach(struct console *c, enum console_port port, int fd);
/* The log becomes a snapshot's, and how much of it has been matched; listeners are told that what they heard has
 * ended. */
void console_restore(struct console *c, const char *log, size_t len, size_t consumed);
/* The port that input goes to: the one behind the guest's /dev/console. */
void console_set_input(struct console *c, enum console_port port);
/* Told when a line says something about the guest's fate; NULL stops it. line is valid during the call. */
void console_on_verdict(struct console *c, void (*fn)(void *arg, enum verdict v, const char *line),
	void *arg);
/* The guest is off: takes what is still in the sockets, closes both ports and tells the listeners. */
void console_detach(struct console *c);
/* Text with carriage returns, escape sequences and other control characters taken out; malloc'ed. */
char *console_strip(const char *text, size_t len);

#endif
