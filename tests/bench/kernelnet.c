/*
 * How exact the kernel backend is, without guests: frames are written to one TAP and read from another, so
 * that what is measured is the kernel's and not a guest's. Prints one figure a line. Needs root; latency is
 * left out where the kernel has no sch_netem. An argument says how many seconds a rate is measured (12).
 */
#include "../unit/netrig.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MS INT64_C(1000000)
#define SAMPLES 60
#define FRAMES 5000

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* Waits for a frame without a loop in between. */
static bool wait_frame(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, ms) == 1 && netrig_receive(fd, NULL, NULL);
}

/* One-way times in ms, sorted. */
static void measure(struct netlan *w, unsigned from, unsigned to, double *samples)
{
	for (int i = 0; i < SAMPLES; i++) {
		int64_t start = now_ns();

		assert_true(netrig_send(w->fd[from], from, to, (uint64_t)i, 100));
		assert_true(wait_frame(w->fd[to], 5000));
		samples[i] = (double)(now_ns() - start) / MS;
		usleep(2000);
	}
	qsort(samples, SAMPLES, sizeof(*samples), compare);
}

static void report(const char *what, unsigned from, unsigned to, const double *samples, double set)
{
	printf("kernelnet: %s, %u to %u\t%.3f ms\terror %+.3f, p95 %.3f\n", what, from, to, samples[SAMPLES / 2],
		samples[SAMPLES / 2] - set, samples[SAMPLES * 95 / 100]);
}

static void latencies(struct netlan *w)
{
	struct net_impairment i = { .latency_ns = 1 };
	double samples[SAMPLES];
	char what[64];

	net_impair(w->lan, NULL, NULL, &i, netrig_done, &w->r);
	netrig_wait(&w->r);
	if (err_is_set(&w->r.err)) {
		printf("kernelnet: latency\t-\tnot measured, no sch_netem\n");
		return;
	}
	netlan_impair(w, 0, 0, (struct net_impairment){ 0 });
	measure(w, 1, 2, samples);
	report("no latency", 1, 2, samples, 0);
	for (int ms = 10; ms <= 200; ms += ms == 10 ? 40 : 150) {
		snprintf(what, sizeof(what), "%d ms for the bridge", ms);
		netlan_impair(w, 0, 0, (struct net_impairment){ .latency_ns = ms * MS });
		measure(w, 1, 2, samples);
		report(what, 1, 2, samples, ms);
		netlan_impair(w, 0, 0, (struct net_impairment){ 0 });
		snprintf(what, sizeof(what), "%d ms for 1 to 2", ms);
		netlan_impair(w, 1, 2, (struct net_impairment){ .latency_ns = ms * MS });
		for (unsigned f = 1; f <= 3; f++)
			for (unsigned t = 1; t <= 3; t++)
				if (f != t) {
					measure(w, f, t, samples);
					report(what, f, t, samples, f == 1 && t == 2 ? ms : 0);
				}
		netlan_impair(w, 1, 2, (struct net_impairment){ 0 });
	}
}

static void losses(struct netlan *w)
{
	const double set[] = { 0.01, 0.1, 0.5 };

	for (unsigned i = 0; i < 3; i++) {
		unsigned came;

		netlan_impair(w, 1, 2, (struct net_impairment){ .loss = set[i] });
		came = netrig_pass(&w->r, w->fd[1], 1, w->fd[2], 2, FRAMES, NETLAN_SOON);
		printf("kernelnet: loss of %g %%\t%.2f %%\tof %d frames\n", 100 * set[i],
			100.0 * (FRAMES - came) / FRAMES, FRAMES);
	}
	netlan_impair(w, 1, 2, (struct net_impairment){ 0 });
}

/* Sends four times what is let through, after a second that fills the queue. Bits a second. */
static double rate_of(struct netlan *w, double rate, int seconds)
{
	int64_t start = now_ns(), end, from = 0, last = 0, next = start;
	size_t size, bytes = 0;

	end = start + (seconds + 1) * 1000 * MS;
	while (now_ns() < end) {
		for (; now_ns() >= next; next += (int64_t)(1000 * 8e9 / (4 * rate)))
			netrig_send(w->fd[1], 1, 2, 0, 1000);
		while (netrig_receive(w->fd[2], NULL, &size)) {
			if (now_ns() - start < 1000 * MS)
				continue;
			if (from)
				bytes += size;
			last = now_ns();
			from = from ? from : last;
		}
		usleep(200);
	}
	while (netrig_receive_within(&w->r, w->fd[2], NETLAN_SOON, NULL))
		;
	return (double)bytes * 8e9 / (double)(last - from);
}

static void rates(struct netlan *w, int seconds)
{
	static const struct { const char *name; unsigned from, to; } kinds[] = {
		{ "the pair", 1, 2 }, { "all to 2", 0, 2 }, { "all from 1", 1, 0 }, { "the bridge", 0, 0 },
	};

	for (unsigned k = 0; k < 4; k++)
		for (int mbit = 1; mbit <= 10; mbit += 9) {
			double got;

			netlan_impair(w, kinds[k].from, kinds[k].to, (struct net_impairment){ .rate_bps = mbit * 1000000u });
			got = rate_of(w, mbit * 1e6, seconds);
			netlan_impair(w, kinds[k].from, kinds[k].to, (struct net_impairment){ 0 });
			printf("kernelnet: %d Mbit/s for %s\t%.4f Mbit/s\terror %+.2f %%\n", mbit, kinds[k].name, got / 1e6,
				100 * (got / (mbit * 1e6) - 1));
			fflush(stdout);
		}
}

/* Frames a second from TAP to TAP, which is a write and a read more than what the kernel does for each. */
static double throughput(struct netlan *w)
{
	int64_t start = now_ns(), end = start + 2000 * MS;
	uint64_t came = 0;

	while (now_ns() < end) {
		for (int i = 0; i < 64; i++)
			netrig_send(w->fd[1], 1, 2, 0, 1514);
		while (netrig_receive(w->fd[2], NULL, NULL))
			came++;
	}
	return (double)came * 1e9 / (double)(now_ns() - start);
}

static void costs(struct netlan *w)
{
	double bare = throughput(w), got;
	struct net_block block = { w->p[3], w->p[1] };

	printf("kernelnet: a bare bridge\t%.0f frames/s\tof 1514 bytes, TAP to TAP\n", bare);
	net_set_blocks(w->lan, &block, 1, netrig_done, &w->r);
	netrig_ok(&w->r);
	got = throughput(w);
	printf("kernelnet: with a block of another pair\t%.2f\tof that\n", got / bare);
	netlan_impair(w, 1, 2, (struct net_impairment){ .loss = 0.000001 });
	got = throughput(w);
	printf("kernelnet: with a rule of chance\t%.2f\tof that\n", got / bare);
	netlan_impair(w, 1, 2, (struct net_impairment){ .rate_bps = UINT64_C(40000000000) });
	got = throughput(w);
	printf("kernelnet: with a tree of queues\t%.2f\tof that\n", got / bare);
	netlan_impair(w, 0, 0, (struct net_impairment){ .rate_bps = UINT64_C(40000000000) });
	got = throughput(w);
	printf("kernelnet: and the queue of the bridge\t%.2f\tof that\n", got / bare);
	netlan_impair(w, 0, 0, (struct net_impairment){ 0 });
	netlan_impair(w, 1, 2, (struct net_impairment){ 0 });
	net_set_blocks(w->lan, NULL, 0, netrig_done, &w->r);
	netrig_ok(&w->r);
}

int main(int argc, char **argv)
{
	struct err e = ERR_INIT;
	struct netlan *w;

	if (net_kernel_usable(&e)) {
		fprintf(stderr, "skipped: %s\n", e.msg);
		err_release(&e);
		return 77;
	}
	netlan_setup((void **)&w);
	costs(w);
	latencies(w);
	losses(w);
	rates(w, argc > 1 ? atoi(argv[1]) : 12);
	netlan_teardown((void **)&w);
	return 0;
}
