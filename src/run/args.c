/*
 * The command line: one table of flags that both the parser and the help text are made from.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "run/args.h"

#define FILE_TIMEOUT_NS (300 * (int64_t)1000000000)
#define OVERCOMMIT_MIN 0.5
#define OVERCOMMIT_MAX 8.0
#define COUNT_MAX 65536

#define FOR(command) (1u << (command))
#define FOR_RUN FOR(CMD_RUN)
#define FOR_FIXTURE FOR(CMD_FIXTURE)
#define FOR_ALL (~0u)

enum value_kind { FLAG_ON, FLAG_TEXT, FLAG_WORDS, FLAG_KEY_VALUE, FLAG_COUNT, FLAG_OTHER };

struct flag {
	const char *name;		/* without the dashes */
	char letter;			/* 0: none */
	enum value_kind kind;
	size_t offset;			/* of the member of struct args */
	unsigned commands;		/* FOR() bits; a run takes every flag */
	const char *value;		/* its name in the help; NULL: takes none */
	const char *help;
	int (*parse)(struct args *a, const char *value, struct err *e);	/* FLAG_OTHER */
};

struct command_info {
	const char *synopsis;
	const char *help;
};

static const struct flag flags[];
static const struct command_info commands[];
static const char *const command_names[];

static void add_word(struct words *w, const char *word)
{
	w->v = xrealloc(w->v, (w->n + 2) * sizeof(*w->v));
	w->v[w->n++] = word;
	w->v[w->n] = NULL;
}

/* ---- values ---- */

/* Finds value in names and sets *index. */
static int parse_choice(const char *flag, const char *const *names, const char *value, int *index,
	struct err *e)
{
	const char *near;

	for (*index = 0; names[*index]; (*index)++)
		if (strcmp(names[*index], value) == 0)
			return 0;
	err_set(e, EINVAL, "--%s: `%s` is not known, use", flag, value);
	for (size_t i = 0; names[i]; i++)
		err_append(e, "%s %s", i == 0 ? "" : names[i + 1] ? "," : " or", names[i]);
	near = nearest_name(value, names);
	if (near)
		err_append(e, "; did you mean `%s`?", near);
	return -EINVAL;
}

static int parse_vmm(struct args *a, const char *value, struct err *e)
{
	static const char *const names[] = { "qemu", "local", NULL };
	int index, r = parse_choice("vmm", names, value, &index, e);

	if (r == 0)
		a->vmm = index == 0 ? VMM_QEMU : VMM_LOCAL;
	return r;
}

static int parse_accel(struct args *a, const char *value, struct err *e)
{
	static const char *const names[] = { "auto", "kvm", "tcg", NULL };
	static const enum accel accels[] = { ACCEL_AUTO, ACCEL_KVM, ACCEL_TCG };
	int index, r = parse_choice("accel", names, value, &index, e);

	if (r == 0)
		a->accel = accels[index];
	return r;
}

static int parse_mem(struct args *a, const char *value, struct err *e)
{
	if (units_parse_size(value, &a->mem, e) < 0)
		return err_prefix(e, "--mem");
	if (a->mem == 0)
		return err_set(e, EINVAL, "--mem: `%s` leaves no memory for any VM; write a size such as 4G",
			value);
	return 0;
}

static int parse_timeout(struct args *a, const char *value, struct err *e)
{
	if (units_parse_duration(value, &a->timeout, e) < 0)
		return err_prefix(e, "--timeout");
	return 0;
}

static int parse_overcommit(struct args *a, const char *value, struct err *e)
{
	double f, clamped;
	char *end;

	errno = 0;
	f = strtod(value, &end);
	if (end == value || *end || !isfinite(f) || f < 0)
		return err_set(e, EINVAL, "--cpu-overcommit: `%s` is not a factor; "
			"write a number between %g and %g", value, OVERCOMMIT_MIN, OVERCOMMIT_MAX);
	clamped = f < OVERCOMMIT_MIN ? OVERCOMMIT_MIN : f > OVERCOMMIT_MAX ? OVERCOMMIT_MAX : f;
	free(a->note);
	a->note = clamped == f ? NULL : xasprintf("--cpu-overcommit %s is outside %g-%g, using %g", value,
		OVERCOMMIT_MIN, OVERCOMMIT_MAX, clamped);
	a->cpu_overcommit = clamped;
	return 0;
}

static int parse_count(const struct flag *f, const char *value, unsigned *count, struct err *e)
{
	unsigned long n;
	char *end;

	errno = 0;
	n = strtoul(value, &end, 10);
	if (*value < '0' || *value > '9' || *end || errno || n < 1 || n > COUNT_MAX)
		return err_set(e, EINVAL, "--%s: `%s` is not a count; write a whole number from 1 to %d",
			f->name, value, COUNT_MAX);
	*count = (unsigned)n;
	return 0;
}

static int set_flag(struct args *a, const struct flag *f, const char *value, struct err *e)
{
	void *member = (char *)a + f->offset;

	switch (f->kind) {
	case FLAG_ON:
		*(bool *)member = true;
		return 0;
	case FLAG_TEXT:
		*(const char **)member = value;
		return 0;
	case FLAG_KEY_VALUE:
		if (!strchr(value, '=') || *value == '=')
			return err_set(e, EINVAL, "--%s: `%s` has no key; write --%s KEY=VALUE", f->name,
				value, f->name);
		/* fall through */
	case FLAG_WORDS:
		add_word(member, value);
		return 0;
	case FLAG_COUNT:
		return parse_count(f, value, member, e);
	case FLAG_OTHER:
		break;
	}
	return f->parse(a, value, e);
}

/* ---- words of the command line ---- */

/* What is left to read. A flag given before the command's name is checked against it at the end. */
struct cursor {
	char **argv;
	int argc, i;
	const struct flag *given[64];	/* each flag once */
	size_t ngiven;
	bool has_command;
};

static int unknown_flag(const char *word, size_t len, struct err *e)
{
	const char *names[64], *near;
	char *name = xstrndup(word, len);
	size_t n = 0;

	for (const struct flag *f = flags; f->name; f++)
		names[n++] = f->name;
	names[n] = NULL;
	near = name[0] == '-' && name[1] == '-' ? nearest_name(name + 2, names) : NULL;
	err_set(e, EINVAL, "unknown flag `%s`", name);
	if (near)
		err_append(e, "; did you mean `--%s`?", near);
	else
		err_append(e, "; `provium --help` lists the flags");
	free(name);
	return -EINVAL;
}

/* Takes the value that follows in the next word. */
static const char *next_value(struct cursor *c, const struct flag *f, struct err *e)
{
	const char *next = c->i + 1 < c->argc ? c->argv[c->i + 1] : NULL;

	if (!next) {
		err_set(e, EINVAL, "--%s needs a value: --%s %s", f->name, f->name, f->value);
		return NULL;
	}
	if (strncmp(next, "--", 2) == 0) {
		err_set(e, EINVAL, "--%s needs a value, found `%s`; if that is the value, write --%s=%s",
			f->name, next, f->name, next);
		return NULL;
	}
	c->i++;
	return next;
}

static int give_flag(struct args *a, struct cursor *c, const struct flag *f, const char *value, struct err *e)
{
	size_t i;

	if (f->value && !value && !(value = next_value(c, f, e)))
		return -EINVAL;
	for (i = 0; i < c->ngiven && c->given[i] != f; i++)
		;
	if (i == c->ngiven)
		c->given[c->ngiven++] = f;
	return set_flag(a, f, value, e);
}

/* --name, --name=value, --name value */
static int take_long(struct args *a, struct cursor *c, const char *word, struct err *e)
{
	size_t len = strcspn(word, "=");
	const char *value = word[len] == '=' ? word + len + 1 : NULL;
	const struct flag *f;

	for (f = flags; f->name && (strlen(f->name) != len - 2 || strncmp(f->name, word + 2, len - 2)); f++)
		;
	if (!f->name)
		return unknown_flag(word, len, e);
	if (value && !f->value)
		return err_set(e, EINVAL, "--%s takes no value, found `%s`", f->name, word);
	return give_flag(a, c, f, value, e);
}

/* -v, -p 4, -p4, -p=4; letters without a value may share one word. */
static int take_short(struct args *a, struct cursor *c, const char *word, struct err *e)
{
	const struct flag *f;
	int r;

	for (const char *letter = word + 1; *letter; letter++) {
		for (f = flags; f->name && f->letter != *letter; f++)
			;
		if (!f->name)
			return unknown_flag(word, strlen(word), e);
		if (f->value)
			return give_flag(a, c, f, !letter[1] ? NULL : letter + (letter[1] == '=' ? 2 : 1), e);
		r = give_flag(a, c, f, NULL, e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int find_command(const char *word)
{
	for (int i = 0; command_names[i]; i++)
		if (*command_names[i] && strcmp(command_names[i], word) == 0)
			return i;
	return -1;
}

/* The first word that is no flag may name the command; `provium ./list` runs a directory of that name. */
static void take_word(struct args *a, struct cursor *c, const char *word)
{
	int command = c->has_command ? -1 : find_command(word);

	c->has_command = true;
	if (command >= 0)
		a->command = (enum command)command;
	else
		add_word(&a->paths, word);
}

static int check_help(struct args *a, struct err *e)
{
	const char *word = a->paths.n > 0 ? a->paths.v[0] : NULL, *near;
	int topic = word ? find_command(word) : CMD_RUN;

	if (a->paths.n > 1)
		return err_set(e, EINVAL, "provium help takes one command, found `%s`", a->paths.v[1]);
	if (topic >= 0) {
		a->topic = (enum command)topic;
		return 0;
	}
	near = nearest_name(word, command_names + 1);
	err_set(e, EINVAL, "there is no command `%s`", word);
	if (near)
		return err_append(e, "; did you mean `%s`?", near);
	return err_append(e, "; `provium --help` lists them");
}

static int wrong_command(const struct args *a, const struct flag *f, struct err *e)
{
	const char *command = command_names[a->command];

	return err_set(e, EINVAL, "--%s does not belong to provium %s; `provium help %s` lists its flags",
		f->name, command, command);
}

/* list | build P | rebuild P | clean | stale */
static int check_fixture(const struct args *a, struct err *e)
{
	static const char *const verbs[] = { "list", "build", "rebuild", "clean", "stale", NULL };
	const char *verb = a->paths.n > 0 ? a->paths.v[0] : NULL, *near;
	bool takes_path = verb && (strcmp(verb, "build") == 0 || strcmp(verb, "rebuild") == 0);
	size_t i;

	if (!verb)
		return err_set(e, EINVAL, "provium fixture needs a verb: list, build, rebuild, clean or stale");
	for (i = 0; verbs[i] && strcmp(verbs[i], verb); i++)
		;
	if (!verbs[i]) {
		near = nearest_name(verb, verbs);
		err_set(e, EINVAL, "provium fixture: `%s` is not known, use list, build, rebuild, clean or stale", verb);
		return near ? err_append(e, "; did you mean `%s`?", near) : e->code;
	}
	if (takes_path && a->paths.n < 2)
		return err_set(e, EINVAL, "provium fixture %s needs a fixture: its file below a root, without .fixture.lua",
			verb);
	if (a->paths.n > 1 + (size_t)takes_path)
		return err_set(e, EINVAL, "provium fixture %s takes %s, found `%s`", verb,
			takes_path ? "one fixture" : "no argument", a->paths.v[1 + takes_path]);
	return 0;
}

/* Checks what cannot be known before all is read. --help and --version win over the rest of the line. */
static int check_together(struct args *a, const struct cursor *c, struct err *e)
{
	if (a->help) {
		a->topic = a->command == CMD_HELP ? CMD_RUN : a->command;
		a->command = CMD_HELP;
		return 0;
	}
	if (a->version) {
		a->command = CMD_VERSION;
		return 0;
	}
	for (size_t i = 0; i < c->ngiven; i++)
		if (!(c->given[i]->commands & FOR(a->command)))
			return wrong_command(a, c->given[i], e);
	if (a->verbose && a->quiet)
		return err_set(e, EINVAL, "-v and -q exclude each other: keep one");
	if (a->command == CMD_PREPARE && a->paths.n > 1)
		return err_set(e, EINVAL, "provium prepare takes one profile, found `%s` after `%s`", a->paths.v[1],
			a->paths.v[0]);
	if (a->command == CMD_VERSION && a->paths.n > 0)
		return err_set(e, EINVAL, "provium version takes no argument, found `%s`", a->paths.v[0]);
	if (a->command == CMD_FIXTURE)
		return check_fixture(a, e);
	return a->command == CMD_HELP ? check_help(a, e) : 0;
}

int args_parse(int argc, char **argv, struct args *a, struct err *e)
{
	struct cursor c = { .argv = argv, .argc = argc };
	bool flags_over = false;
	int r = 0;

	memset(a, 0, sizeof(*a));
	a->command = CMD_RUN;
	a->cpu_overcommit = 1.0;
	a->timeout = FILE_TIMEOUT_NS;
	for (c.i = 1; c.i < argc && r == 0; c.i++) {
		const char *word = argv[c.i];

		if (flags_over || word[0] != '-' || !word[1])
			take_word(a, &c, word);
		else if (strcmp(word, "--") == 0)
			flags_over = c.has_command = true;
		else if (word[1] == '-')
			r = take_long(a, &c, word, e);
		else
			r = take_short(a, &c, word, e);
	}
	return r < 0 ? r : check_together(a, &c, e);
}

void args_release(struct args *a)
{
	free(a->paths.v);
	free(a->tags.v);
	free(a->no_tags.v);
	free(a->tag_meta.v);
	free(a->no_tag_meta.v);
	free(a->tests.v);
	free(a->note);
	memset(a, 0, sizeof(*a));
}

/* ---- help ---- */

static void print_flag(FILE *out, const struct flag *f)
{
	char name[64];

	snprintf(name, sizeof(name), "%c%c%c --%s%s%s", f->letter ? '-' : ' ', f->letter ? f->letter : ' ',
		f->letter ? ',' : ' ', f->name, f->value ? " " : "", f->value ? f->value : "");
	fprintf(out, "  %-26s %s\n", name, f->help);
}

void args_usage(FILE *out, enum command topic)
{
	fprintf(out, "usage: provium %s\n\n%s\n", commands[topic].synopsis, commands[topic].help);
	if (topic == CMD_RUN) {
		fprintf(out, "\nCommands:\n");
		for (size_t i = 1; commands[i].synopsis; i++)
			fprintf(out, "  provium %s\n", commands[i].synopsis);
	}
	if (topic != CMD_VERSION && topic != CMD_HELP) {
		fprintf(out, "\nFlags:\n");
		for (const struct flag *f = flags; f->name; f++)
			if (f->commands & FOR(topic))
				print_flag(out, f);
	}
	if (topic == CMD_RUN)
		fprintf(out, "\nExit status: 0 everything passed or was skipped; 1 something failed or timed out; "
			"2 bad flags,\nbad configuration or an internal error.\n");
}

/* ---- tables ---- */

#define MEMBER(name) offsetof(struct args, name)

static const struct flag flags[] = {
	{ "config", 0, FLAG_TEXT, MEMBER(config), FOR_RUN | FOR(CMD_LIST) | FOR(CMD_PREPARE) | FOR_FIXTURE, "PATH",
	  "the config file (default: provium.toml, searched upwards)", NULL },
	{ "filter", 0, FLAG_TEXT, MEMBER(filter), FOR_RUN | FOR(CMD_LIST), "STR",
	  "only files whose root-relative path contains STR", NULL },
	{ "include-slow", 0, FLAG_ON, MEMBER(include_slow), FOR_RUN, NULL,
	  "also run tests with meta.slow", NULL },
	{ "tag", 0, FLAG_WORDS, MEMBER(tags), FOR_RUN, "TAG",
	  "only tests with this tag; repeatable, any of them", NULL },
	{ "no-tag", 0, FLAG_WORDS, MEMBER(no_tags), FOR_RUN, "TAG",
	  "no test with this tag; repeatable, wins over --tag", NULL },
	{ "tag-meta", 0, FLAG_KEY_VALUE, MEMBER(tag_meta), FOR_RUN, "K=V",
	  "only tests whose meta.K holds V; same K: any, different K: all", NULL },
	{ "no-tag-meta", 0, FLAG_KEY_VALUE, MEMBER(no_tag_meta), FOR_RUN, "K=V",
	  "no test whose meta.K holds V; wins over --tag-meta", NULL },
	{ "test", 0, FLAG_WORDS, MEMBER(tests), FOR_RUN, "NAME",
	  "only tests with exactly this name; repeatable", NULL },
	{ "rerun-failed", 0, FLAG_ON, MEMBER(rerun_failed), FOR_RUN, NULL,
	  "only files that failed last time", NULL },
	{ "vmm", 0, FLAG_OTHER, 0, FOR_RUN, "qemu|local",
	  "local: no kernel, the agent runs on the host (default: qemu)", parse_vmm },
	{ "accel", 0, FLAG_OTHER, 0, FOR_RUN | FOR_FIXTURE, "auto|kvm|tcg",
	  "overrides every profile (default: auto)", parse_accel },
	{ "mem", 0, FLAG_OTHER, 0, FOR_RUN | FOR_FIXTURE, "SIZE",
	  "memory for all VMs together (default: 80 % of the host's)", parse_mem },
	{ "cpus", 0, FLAG_COUNT, MEMBER(cpus), FOR_RUN | FOR_FIXTURE, "N",
	  "vCPUs for all VMs together (default: the online CPUs)", NULL },
	{ "cpu-overcommit", 0, FLAG_OTHER, 0, FOR_RUN | FOR_FIXTURE, "F",
	  "multiplies --cpus, 0.5 to 8 (default: 1)", parse_overcommit },
	{ "jobs", 'p', FLAG_COUNT, MEMBER(jobs), FOR_RUN, "N",
	  "files in flight (default: as many as the pool takes)", NULL },
	{ "artifacts", 0, FLAG_TEXT, MEMBER(artifacts), FOR_RUN, "DIR",
	  "what failed tests leave (default: provium-artifacts)", NULL },
	{ "no-build", 0, FLAG_ON, MEMBER(no_build), FOR_RUN | FOR_FIXTURE, NULL,
	  "do not run the profiles' build commands", NULL },
	{ "no-color", 0, FLAG_ON, MEMBER(no_color), FOR_RUN | FOR(CMD_LIST) | FOR(CMD_PREPARE), NULL,
	  "plain output on a terminal too", NULL },
	{ "timeout", 0, FLAG_OTHER, 0, FOR_RUN | FOR_FIXTURE, "DUR",
	  "wall clock for each file (default: 300s; 0: none)", parse_timeout },
	{ "fail-fast", 0, FLAG_ON, MEMBER(fail_fast), FOR_RUN, NULL,
	  "start nothing after the first failed file", NULL },
	{ "verbose", 'v', FLAG_ON, MEMBER(verbose), FOR_RUN | FOR(CMD_PREPARE) | FOR_FIXTURE, NULL,
	  "show every test", NULL },
	{ "quiet", 'q', FLAG_ON, MEMBER(quiet), FOR_RUN | FOR(CMD_PREPARE) | FOR_FIXTURE, NULL,
	  "show failures and the summary only", NULL },
	{ "json", 0, FLAG_ON, MEMBER(json), FOR_RUN | FOR(CMD_LIST), NULL,
	  "JSON on stdout, one object per line", NULL },
	{ "fixtures", 0, FLAG_ON, MEMBER(fixtures), FOR(CMD_LIST), NULL,
	  "the fixtures (*.fixture.lua) instead of the test files", NULL },
	{ "version", 0, FLAG_ON, MEMBER(version), FOR_RUN, NULL,
	  "print the version", NULL },
	{ "help", 'h', FLAG_ON, MEMBER(help), FOR_ALL, NULL,
	  "print this help", NULL },
	{ NULL, 0, FLAG_ON, 0, 0, NULL, NULL, NULL },
};

/* Indexed by enum command. */
static const struct command_info commands[] = {
	[CMD_RUN] = { "[PATH]... [FLAGS]",
		"Runs the test files (*.test.lua) below each PATH; without PATH, below the config's roots." },
	[CMD_PREPARE] = { "prepare [PROFILE]",
		"Runs the profiles' build commands and boots nothing." },
	[CMD_LIST] = { "list [PATH]... [--fixtures] [--json]",
		"Lists the test files that a run would take, or the fixtures." },
	[CMD_FIXTURE] = { "fixture list | build P | rebuild P | clean | stale",
		"Shows, builds and removes cached fixtures; stale lists those that the next run would build." },
	[CMD_VERSION] = { "version",
		"Prints the version." },
	[CMD_HELP] = { "help [COMMAND]",
		"Explains a command." },
	{ NULL, NULL },
};

/* In the same order; running tests has no name of its own. */
static const char *const command_names[] = { "", "prepare", "list", "fixture", "version", "help", NULL };
