/*
 * IP packets: looked at, made, answered.
 */
#include <string.h>

#include "loop/loop.h"
#include "net/ip.h"

#define ERROR_QUOTE4 548		/* an error with it fits into 576 bytes */
#define ERROR_QUOTE6 1232		/* ... into 1280 */
#define TTL 64

static uint32_t sum(const uint8_t *p, size_t len, uint32_t start)
{
	uint64_t total = start;

	for (; len > 1; p += 2, len -= 2)
		total += get16(p);
	if (len)
		total += (uint32_t)p[0] << 8;
	while (total >> 16)
		total = (total & 0xffff) + (total >> 16);
	return (uint32_t)total;
}

bool ip_same_prefix(const uint8_t *a, const uint8_t *b, unsigned bits)
{
	unsigned rest = bits % 8;

	if (memcmp(a, b, bits / 8) != 0)
		return false;
	return rest == 0 || ((a[bits / 8] ^ b[bits / 8]) & (0xff00 >> rest) & 0xff) == 0;
}

/* ---- looking at them ---- */

static bool parse4(struct packet *p, const uint8_t *ip, size_t len)
{
	size_t header, total;

	if (len < IP4_HEADER)
		return false;
	header = (size_t)(ip[0] & 15) * 4;
	total = get16(ip + 2);
	if (header < IP4_HEADER || total < header || total > len || sum(ip, header, 0) != 0xffff)
		return false;
	p->is6 = false;
	p->len = total;
	p->src = ip_address_of(false, ip + 12);
	p->dst = ip_address_of(false, ip + 16);
	p->ttl = ip[8];
	p->proto = ip[9];
	if ((get16(ip + 6) & 0x1fff) == 0) {
		p->payload = ip + header;
		p->payload_len = total - header;
	}
	return true;
}

/* Extension headers are not looked through: what has some is forwarded like any other. */
static bool parse6(struct packet *p, const uint8_t *ip, size_t len)
{
	if (len < IP6_HEADER || (size_t)get16(ip + 4) + IP6_HEADER > len)
		return false;
	p->is6 = true;
	p->len = (size_t)get16(ip + 4) + IP6_HEADER;
	p->src = ip_address_of(true, ip + 8);
	p->dst = ip_address_of(true, ip + 24);
	p->ttl = ip[7];
	p->proto = ip[6];
	p->payload = ip + IP6_HEADER;
	p->payload_len = p->len - IP6_HEADER;
	return true;
}

bool packet_parse(struct packet *p, const void *data, size_t len)
{
	const uint8_t *ip = data;

	memset(p, 0, sizeof(*p));
	p->ip = ip;
	if (len > 0 && ip[0] >> 4 == 4)
		return parse4(p, ip, len);
	return len > 0 && ip[0] >> 4 == 6 && parse6(p, ip, len);
}

bool packet_multicast(const struct ip_address *a)
{
	static const uint8_t all[4] = { 255, 255, 255, 255 };

	if (a->is6)
		return a->bytes[0] == 0xff;
	return a->bytes[0] >> 4 == 14 || memcmp(a->bytes, all, 4) == 0;
}

bool packet_martian(const struct ip_address *a)
{
	static const uint8_t zero[16];

	if (!a->is6)
		return a->bytes[0] == 0 || a->bytes[0] == 127 || a->bytes[0] >= 240;
	/* ::, ::1, and IPv4 in disguise (::ffff:0:0/96, ::/96) */
	return memcmp(a->bytes, zero, 10) == 0 &&
		(get16(a->bytes + 10) == 0 || get16(a->bytes + 10) == 0xffff);
}

/* ---- making them ---- */

static void fill_header4(uint8_t *ip, const struct ip_address *src, const struct ip_address *dst, unsigned proto,
	size_t payload_len)
{
	memset(ip, 0, IP4_HEADER);
	ip[0] = 0x45;
	put16(ip + 2, (unsigned)(IP4_HEADER + payload_len));
	put16(ip + 6, 0x4000);		/* never fragmented, so needs no id */
	ip[8] = TTL;
	ip[9] = (uint8_t)proto;
	memcpy(ip + 12, src->bytes, 4);
	memcpy(ip + 16, dst->bytes, 4);
	put16(ip + 10, ~sum(ip, IP4_HEADER, 0) & 0xffff);
}

static void fill_header6(uint8_t *ip, const struct ip_address *src, const struct ip_address *dst, unsigned proto,
	size_t payload_len)
{
	memset(ip, 0, IP6_HEADER);
	ip[0] = 0x60;
	put16(ip + 4, (unsigned)payload_len);
	ip[6] = (uint8_t)proto;
	ip[7] = proto == PROTO_ICMP6 ? 255 : TTL;	/* neighbour discovery wants 255 */
	memcpy(ip + 8, src->bytes, 16);
	memcpy(ip + 24, dst->bytes, 16);
}

struct frame *packet_new(const struct ip_address *src, const struct ip_address *dst, unsigned proto,
	size_t payload_len)
{
	struct frame *f = frame_new(FRAME_HEADER + (src->is6 ? IP6_HEADER : IP4_HEADER) + payload_len);

	memset(f->data, 0, f->len);
	put16(f->data + 12, src->is6 ? TYPE_IP6 : TYPE_IP4);
	if (src->is6)
		fill_header6(f->data + FRAME_HEADER, src, dst, proto, payload_len);
	else
		fill_header4(f->data + FRAME_HEADER, src, dst, proto, payload_len);
	return f;
}

void packet_sum_icmp(struct frame *f)
{
	uint8_t *payload = packet_payload(f);
	size_t len = f->len - (size_t)(payload - f->data);
	uint32_t start = 0;

	if (get16(f->data + 12) == TYPE_IP6)	/* the pseudo header: addresses, length, protocol */
		start = sum(f->data + FRAME_HEADER + 8, 32, (uint32_t)len + PROTO_ICMP6);
	put16(payload + 2, 0);
	put16(payload + 2, ~sum(payload, len, start) & 0xffff);
}

bool packet_icmp_intact(const struct packet *p)
{
	uint32_t start = p->is6 ? sum(p->ip + 8, 32, (uint32_t)p->payload_len + PROTO_ICMP6) : 0;

	return p->payload && sum(p->payload, p->payload_len, start) == 0xffff;
}

struct frame *packet_forwarded(const struct packet *p)
{
	struct frame *f = frame_new(FRAME_HEADER + p->len);
	uint8_t *ip = f->data + FRAME_HEADER;

	memset(f->data, 0, FRAME_HEADER);
	put16(f->data + 12, p->is6 ? TYPE_IP6 : TYPE_IP4);
	memcpy(ip, p->ip, p->len);
	if (p->is6) {
		ip[7]--;
	} else {
		size_t header = (size_t)(ip[0] & 15) * 4;

		ip[8]--;
		put16(ip + 10, 0);
		put16(ip + 10, ~sum(ip, header, 0) & 0xffff);
	}
	return f;
}

/* ---- answering them ---- */

struct frame *packet_echo_reply(const struct packet *p)
{
	struct frame *f;
	uint8_t *icmp;

	if (!p->payload || p->payload_len < 8 || p->proto != (p->is6 ? PROTO_ICMP6 : PROTO_ICMP) ||
	    p->payload[0] != (p->is6 ? 128 : 8) || !packet_icmp_intact(p))
		return NULL;
	f = packet_new(&p->dst, &p->src, p->proto, p->payload_len);
	icmp = packet_payload(f);
	memcpy(icmp, p->payload, p->payload_len);
	icmp[0] = p->is6 ? 129 : 0;
	packet_sum_icmp(f);
	return f;
}

static bool may_tell(const struct packet *p)
{
	if (!p->payload || packet_multicast(&p->dst) || packet_multicast(&p->src) || packet_martian(&p->src))
		return false;
	if (p->is6)
		return p->proto != PROTO_ICMP6 || (p->payload_len > 0 && p->payload[0] >= 128);
	return p->proto != PROTO_ICMP || (p->payload_len > 0 && (p->payload[0] == 8 || p->payload[0] == 0));
}

struct frame *packet_error(const struct packet *p, const struct ip_address *from, enum icmp_problem problem)
{
	static const uint8_t codes4[][2] = { { 3, 0 }, { 3, 1 }, { 3, 3 }, { 11, 0 } };
	static const uint8_t codes6[][2] = { { 1, 0 }, { 1, 3 }, { 1, 4 }, { 3, 0 } };
	size_t quote = p->is6 ? ERROR_QUOTE6 : ERROR_QUOTE4;
	struct frame *f;
	uint8_t *icmp;

	if (!may_tell(p))
		return NULL;
	if (quote > p->len)
		quote = p->len;
	f = packet_new(from, &p->src, p->is6 ? PROTO_ICMP6 : PROTO_ICMP, 8 + quote);
	icmp = packet_payload(f);
	memcpy(icmp, p->is6 ? codes6[problem] : codes4[problem], 2);
	memcpy(icmp + 8, p->ip, quote);
	packet_sum_icmp(f);
	return f;
}
