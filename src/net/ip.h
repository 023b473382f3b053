/*
 * IP packets as bytes: fields in network order at any alignment, checksums, headers, ICMP.
 */
#ifndef PROVIUM_NET_IP_H
#define PROVIUM_NET_IP_H

#include <stdbool.h>
#include <string.h>

#include "net/frame.h"

#define TYPE_IP4 0x0800
#define TYPE_ARP 0x0806
#define TYPE_IP6 0x86dd

#define IP4_HEADER 20
#define IP6_HEADER 40
#define ARP_LENGTH 28

#define PROTO_ICMP 1
#define PROTO_TCP 6
#define PROTO_UDP 17
#define PROTO_ICMP6 58

static inline uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

/* An address of either family; IPv4 uses the first four bytes, the rest is zero. */
struct ip_address {
	bool is6;
	uint8_t bytes[16];
};

static inline struct ip_address ip_address_of(bool is6, const uint8_t *bytes)
{
	struct ip_address a = { .is6 = is6 };

	memcpy(a.bytes, bytes, is6 ? 16 : 4);
	return a;
}

static inline bool ip_equal(const struct ip_address *a, const struct ip_address *b)
{
	return a->is6 == b->is6 && memcmp(a->bytes, b->bytes, 16) == 0;
}

/* Whether the first `bits` bits are the same. */
bool ip_same_prefix(const uint8_t *a, const uint8_t *b, unsigned bits);

/* A packet that was looked at and is in order; points into its frame. */
struct packet {
	const uint8_t *ip;
	size_t len;			/* as the header says; padding is not in it */
	bool is6;
	struct ip_address src, dst;
	unsigned ttl, proto;
	const uint8_t *payload;		/* NULL for a fragment that is not the first */
	size_t payload_len;
};

/* False: not an IP packet, or one that is damaged. */
bool packet_parse(struct packet *p, const void *data, size_t len);
/* Whether no host on a network has this address: unspecified, loopback, reserved. */
bool packet_martian(const struct ip_address *a);
bool packet_multicast(const struct ip_address *a);	/* IPv4's broadcast too */

/* A frame with room for the Ethernet header's addresses (its type is set), an IP header, and payload_len bytes for
 * the caller to fill. */
struct frame *packet_new(const struct ip_address *src, const struct ip_address *dst, unsigned proto,
	size_t payload_len);
static inline uint8_t *packet_payload(struct frame *f)
{
	return f->data + FRAME_HEADER + (get16(f->data + 12) == TYPE_IP6 ? IP6_HEADER : IP4_HEADER);
}
/* Fills in the checksum of an ICMP message, either family's, once it is complete. */
void packet_sum_icmp(struct frame *f);
/* A copy of the packet with its lifetime one lower, in a frame as above. */
struct frame *packet_forwarded(const struct packet *p);
/* Whether the checksum of an ICMP message is right. */
bool packet_icmp_intact(const struct packet *p);
/* The answer to an echo request, or NULL when p is none. */
struct frame *packet_echo_reply(const struct packet *p);

enum icmp_problem { ICMP_NO_ROUTE, ICMP_NO_HOST, ICMP_NO_PORT, ICMP_TIME_EXCEEDED };
/* What tells p's sender, or NULL when nothing may be said (to an error, to a group). */
struct frame *packet_error(const struct packet *p, const struct ip_address *from, enum icmp_problem problem);

#endif
