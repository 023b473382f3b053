/*
 * Making a key: texts at once, files by what they hold, in the order they were added.
 */
#ifndef PROVIUM_RUN_KEYJOB_H
#define PROVIUM_RUN_KEYJOB_H

#include "store/store.h"
#include "vmm/vmm.h"

struct key_job;

/* kind: what the key is for ("fixture"); Provium's version and the host's processor go in. */
struct key_job *key_job_new(struct vmm *v, struct contents *c, const char *kind);
void key_job_text(struct key_job *j, const char *name, const char *text);
void key_job_bytes(struct key_job *j, const char *name, const void *data, size_t len);
void key_job_number(struct key_job *j, const char *name, uint64_t n);
/* A file that is not there is a part too: it may come. */
void key_job_file(struct key_job *j, const char *name, const char *path);
/* One that a guest gets with its mode. */
void key_job_file_and_mode(struct key_job *j, const char *name, const char *path);
/* Everything of a profile that shapes its guests, by content; o may be NULL. */
void key_job_profile(struct key_job *j, const struct profile *p, const struct vm_options *o);
/* Asks for the key: cb comes from the loop, once. */
void key_job_end(struct key_job *j, void (*cb)(void *arg, const char *key, const struct err *e), void *arg);
/* At any time, in cb too. NULL is fine. */
void key_job_free(struct key_job *j);

#endif
