/*
 * Chance: SplitMix64, which is fast, and whose streams from different seeds have nothing to do with each other.
 */
#include "net/chance.h"

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static uint64_t mix_text(uint64_t x, const char *s)
{
	for (; *s; s++)
		x = mix(x ^ (unsigned char)*s) + 1;
	return mix(x + 0x100);		/* no byte: "a", "bc" differs from "ab", "c" */
}

void chance_init(struct chance *c, uint64_t seed, const char *from, const char *to, unsigned salt)
{
	*c = (struct chance){ .state = mix(mix_text(mix_text(mix(seed + 1), from), to) + salt) };
}

uint64_t chance_bits(struct chance *c)
{
	c->state += UINT64_C(0x9e3779b97f4a7c15);
	return mix(c->state);
}

/* 0 <= x < 1 */
static double unit(struct chance *c)
{
	return (double)(chance_bits(c) >> 11) * 0x1p-53;
}

bool chance_yes(struct chance *c, double p, double correlation)
{
	if (!(c->any && correlation > 0 && unit(c) < correlation))
		c->last_yes = unit(c) < p;
	c->any = true;
	return c->last_yes;
}

double chance_value(struct chance *c, double correlation)
{
	double fresh = unit(c) * 2 - 1;

	c->last_value = c->any ? correlation * c->last_value + (1 - correlation) * fresh : fresh;
	c->any = true;
	return c->last_value;
}
