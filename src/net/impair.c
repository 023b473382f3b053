/*
 * Impairments put together: what several settings make of one frame's way.
 */
#include "net/backend.h"

bool net_impairment_is_zero(const struct net_impairment *i)
{
	return !i->latency_ns && !i->jitter_ns && i->loss <= 0 && i->duplicate <= 0 && i->reorder <= 0 &&
		i->corrupt <= 0 && !i->rate_bps;
}

/* The chance that at least one of two independent things happens. */
static double either(double a, double b)
{
	return 1 - (1 - a) * (1 - b);
}

static double larger(double a, double b)
{
	return a > b ? a : b;
}

void net_impairment_add(struct net_impairment *sum, const struct net_impairment *i)
{
	sum->latency_ns += i->latency_ns;
	sum->jitter_ns += i->jitter_ns;
	sum->latency_correlation = larger(sum->latency_correlation, i->latency_correlation);
	sum->loss = either(sum->loss, i->loss);
	sum->loss_correlation = larger(sum->loss_correlation, i->loss_correlation);
	sum->duplicate = either(sum->duplicate, i->duplicate);
	sum->reorder = either(sum->reorder, i->reorder);
	sum->corrupt = either(sum->corrupt, i->corrupt);
	if (i->rate_bps && (!sum->rate_bps || i->rate_bps < sum->rate_bps)) {
		sum->rate_bps = i->rate_bps;
		sum->burst_bytes = i->burst_bytes;
	}
}
