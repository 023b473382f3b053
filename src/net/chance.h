/*
 * Decisions by chance that can be repeated: a generator for each kind of decision on a path, and what the last one was.
 */
#ifndef PROVIUM_NET_CHANCE_H
#define PROVIUM_NET_CHANCE_H

#include <stdbool.h>
#include <stdint.h>

struct chance {
	uint64_t state;
	bool any, last_yes;		/* any: there was a last one */
	double last_value;
};

/* salt: which decision. */
void chance_init(struct chance *c, uint64_t seed, const char *from, const char *to, unsigned salt);
uint64_t chance_bits(struct chance *c);
/* True with probability p. The share `correlation` of decisions repeats the last one, which leaves p as it is. */
bool chance_yes(struct chance *c, double p, double correlation);
/* From -1 to 1, near the last one as far as correlation says. */
double chance_value(struct chance *c, double correlation);

#endif
