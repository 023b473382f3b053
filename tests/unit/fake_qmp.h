/*
 * A fake QMP server at one end of a socketpair, in the loop of the test.
 */
#ifndef PROVIUM_TESTS_FAKE_QMP_H
#define PROVIUM_TESTS_FAKE_QMP_H

#include <jansson.h>

#include "loop/loop.h"

struct fake_qmp;

/* Greets, answers qmp_capabilities, and every other command by its name:
 *   "echo" returns its arguments, "fail" an error, "hold" is kept unanswered, "release" answers it and
 *   itself, "event" sends the event TEST first, "garbage" sends a line that is not JSON, "hang-up" closes. */
struct fake_qmp *fake_qmp_new(struct loop *l, int fd, bool greet);
/* Another answer to a command: JSON for `return`, "fail" or "hold" as above. Texts are borrowed. */
void fake_qmp_on(struct fake_qmp *s, const char *command, const char *answer);
/* Told of each command before it is answered. */
void fake_qmp_watch(struct fake_qmp *s, void (*fn)(void *arg, const char *command, const json_t *args), void *arg);
void fake_qmp_hang_up(struct fake_qmp *s);
void fake_qmp_send(struct fake_qmp *s, const char *text);
size_t fake_qmp_commands(const struct fake_qmp *s);
void fake_qmp_free(struct fake_qmp *s);

#endif
