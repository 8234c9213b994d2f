/*
 * The CPUID of each vCPU. See cpuid.h.
 *
 * Rule: what the guest sees is what KVM says it supports on this host, minus what NEMU cannot
 * keep (features.c says which and why), minus what the user switched off with all that needs it,
 * and with everything that depends on the place of a vCPU written from -smp. KVM itself
 * fills in at run time what depends on control registers (OSXSAVE, APIC, sizes of leaf 0xD).
 *
 * Topology: ids are thread | core | socket, each field a whole number of bits. Caches: levels 1
 * and 2 belong to a core, level 3 to a socket.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86/cpuid_int.h"
#include "base/util.h"

#define MAX_LEAVES 256

/* KVM's x86/cpuid.rst */
#define KVM_CPUID_LEAF_FEATURES	 0x40000001u
#define KVM_FEATURE_EXT_DEST_BIT 15

/* leaf 1 */
#define L1_ECX_X2APIC	  (1u << 21)
#define L1_ECX_OSXSAVE	  (1u << 27)
#define L1_ECX_HYPERVISOR (1u << 31)
#define L1_EDX_HTT	  (1u << 28)
/* leaf 80000001h ECX */
#define E1_ECX_CMP_LEGACY (1u << 1)
#define E1_ECX_TOPOEXT	  (1u << 22)

/* Leaf 0xB and 0x1F: level types */
#define LEVEL_SMT  1
#define LEVEL_CORE 2

struct builder {
	struct kvm_cpuid2 *c;
	const struct x86_cpuid_config *cfg;
	uint32_t apic_id;
	enum x86_vendor vendor;
};

static unsigned bits_for(unsigned n)
{
	return n <= 1 ? 0 : 32 - __builtin_clz(n - 1);
}

uint32_t x86_apic_id(const struct x86_topology *t, unsigned index)
{
	unsigned tb = bits_for(t->threads), cb = bits_for(t->cores);
	unsigned thread = index % t->threads;
	unsigned core = index / t->threads % t->cores;
	unsigned socket = index / t->threads / t->cores;

	return socket << (tb + cb) | core << tb | thread;
}

uint32_t x86_apic_id_max(const struct x86_topology *t)
{
	return x86_apic_id(t, t->sockets * t->cores * t->threads - 1);
}

const struct kvm_cpuid_entry2 *x86_cpuid_find(const struct kvm_cpuid2 *c, uint32_t function,
					      uint32_t index)
{
	for (uint32_t i = 0; i < c->nent; i++) {
		const struct kvm_cpuid_entry2 *e = &c->entries[i];

		if (e->function == function &&
		    (!(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || e->index == index)) {
			return e;
		}
	}
	return NULL;
}

uint32_t *x86_cpuid_reg(struct kvm_cpuid_entry2 *e, enum x86_reg reg)
{
	switch (reg) {
	case X86_EAX:
		return &e->eax;
	case X86_EBX:
		return &e->ebx;
	case X86_ECX:
		return &e->ecx;
	default:
		return &e->edx;
	}
}

enum x86_vendor x86_cpuid_vendor(const struct kvm_cpuid2 *c)
{
	const struct kvm_cpuid_entry2 *e = x86_cpuid_find(c, 0, 0);

	/* EBX of "AuthenticAMD" and "HygonGenuine" */
	return e && (e->ebx == 0x68747541 || e->ebx == 0x6F677948) ? X86_AMD : X86_INTEL;
}

uint32_t x86_cpuid_signature(const struct kvm_cpuid2 *c)
{
	const struct kvm_cpuid_entry2 *e = x86_cpuid_find(c, 1, 0);

	return e ? e->eax : 0;
}

static struct kvm_cpuid_entry2 *find(struct builder *b, uint32_t function, uint32_t index)
{
	return (struct kvm_cpuid_entry2 *)x86_cpuid_find(b->c, function, index);
}

static void zero(struct kvm_cpuid_entry2 *e)
{
	e->eax = e->ebx = e->ecx = e->edx = 0;
}

static void zero_leaf(struct builder *b, uint32_t function)
{
	for (uint32_t i = 0; i < b->c->nent; i++) {
		if (b->c->entries[i].function == function) {
			zero(&b->c->entries[i]);
		}
	}
}

static void drop_leaf(struct builder *b, uint32_t function)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < b->c->nent; i++) {
		if (b->c->entries[i].function != function) {
			b->c->entries[n++] = b->c->entries[i];
		}
	}
	b->c->nent = n;
}

static bool has(struct builder *b, const char *name)
{
	const struct x86_feature *f = &x86_features[x86_feature_find(name)];
	struct kvm_cpuid_entry2 *e = find(b, f->leaf, f->subleaf);

	return e && *x86_cpuid_reg(e, f->reg) >> f->bit & 1;
}

static void clear(struct builder *b, const struct x86_feature *f)
{
	struct kvm_cpuid_entry2 *e = find(b, f->leaf, f->subleaf);

	if (e) {
		*x86_cpuid_reg(e, f->reg) &= ~(1u << f->bit);
	}
}

/* What the user asked for, then what does not stand alone. */
static int apply_features(struct builder *b, struct err *err)
{
	const struct x86_cpu_model *m = b->cfg->model;
	bool again = true;

	for (unsigned i = 0; i < x86_feature_count; i++) {
		if (x86_features[i].refused) {
			clear(b, &x86_features[i]);
		}
	}
	for (unsigned i = 0; i < m->changes; i++) {
		const struct x86_feature *f = &x86_features[m->change[i].feature];

		if (m->change[i].on && !has(b, f->name)) {
			return err_set(err, EINVAL,
				       "-cpu: KVM does not offer feature '%s' on this host: "
				       "leave it out",
				       f->name);
		}
		if (!m->change[i].on) {
			clear(b, f);
		}
	}
	while (again) { /* ends: each round but the last clears a bit */
		again = false;
		for (unsigned i = 0; i < x86_feature_count; i++) {
			const struct x86_feature *f = &x86_features[i];

			if (f->needs && has(b, f->name) && !has(b, f->needs)) {
				clear(b, f);
				again = true;
			}
		}
	}
	return 0;
}

/* XCR0 components (SDM vol. 1, 13.1) go with the features they hold the registers of. */
static void trim_xsave(struct builder *b)
{
	static const struct {
		uint64_t mask;
		const char *feature;
	} parts[] = {
		{1u << 2, "avx"}, {3u << 3, "mpx"},	  {7u << 5, "avx512f"},
		{1u << 9, "pku"}, {3u << 17, "amx-tile"},
	};
	struct kvm_cpuid_entry2 *d = find(b, 0xD, 0), *sub;
	uint64_t xcr0;
	uint32_t size = 512 + 64;

	if (!d) {
		return;
	}
	if (!has(b, "xsave")) {
		zero_leaf(b, 0xD);
		zero_leaf(b, 0x1D);
		zero_leaf(b, 0x1E);
		return;
	}
	xcr0 = d->eax | (uint64_t)d->edx << 32;
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		if (!has(b, parts[i].feature)) {
			xcr0 &= ~parts[i].mask;
		}
	}
	if (!has(b, "amx-tile")) {
		zero_leaf(b, 0x1D);
		zero_leaf(b, 0x1E);
	}
	for (unsigned i = 2; i < 63; i++) {
		sub = find(b, 0xD, i);
		if (!sub) {
			continue;
		}
		if (xcr0 >> i & 1) {
			size = MAX(size, sub->eax + sub->ebx);
		} else if (!(sub->ecx & 1)) { /* bit 0: a supervisor component, of IA32_XSS */
			zero(sub);
		}
	}
	d->eax = (uint32_t)xcr0;
	d->edx = xcr0 >> 32;
	d->ecx = size;
	sub = find(b, 0xD, 1);
	if (sub && !has(b, "xsaves")) {
		sub->ecx = sub->edx = 0;
	}
	if (sub && !has(b, "shstk") && !has(b, "ibt")) {
		sub->ecx &= ~(3u << 11);
	}
}

static int append(struct builder *b, struct kvm_cpuid_entry2 e)
{
	if (b->c->nent == MAX_LEAVES) {
		return -ENOSPC;
	}
	b->c->entries[b->c->nent++] = e;
	return 0;
}

/* Leaf 0xB or 0x1F: SDM "Extended Topology Enumeration Leaf". */
static int topology_leaf(struct builder *b, uint32_t function)
{
	const struct x86_topology *t = &b->cfg->topo;
	unsigned tb = bits_for(t->threads), cb = bits_for(t->cores);
	struct kvm_cpuid_entry2 e = {
		.function = function,
		.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
		.edx = b->apic_id,
	};
	int r;

	drop_leaf(b, function);
	e.index = 0;
	e.eax = tb;
	e.ebx = t->threads;
	e.ecx = LEVEL_SMT << 8 | 0;
	r = append(b, e);
	e.index = 1;
	e.eax = tb + cb;
	e.ebx = t->threads * t->cores;
	e.ecx = LEVEL_CORE << 8 | 1;
	r = r ? r : append(b, e);
	e.index = 2;
	e.eax = e.ebx = 0;
	e.ecx = 2;
	return r ? r : append(b, e);
}

/* Leaf 4 and 8000001Dh: how many ids share each cache. */
static void cache_leaf(struct builder *b, uint32_t function)
{
	const struct x86_topology *t = &b->cfg->topo;
	unsigned tb = bits_for(t->threads), cb = bits_for(t->cores);

	for (uint32_t i = 0; i < b->c->nent; i++) {
		struct kvm_cpuid_entry2 *e = &b->c->entries[i];
		unsigned level = e->eax >> 5 & 7, share;

		if (e->function != function || !(e->eax & 0x1F)) {
			continue;
		}
		share = (1u << (level >= 3 ? tb + cb : tb)) - 1;
		e->eax = (e->eax & 0x3FFF) | MIN(share, 0xFFF) << 14;
		if (function == 4) {
			e->eax |= MIN((1u << cb) - 1, 63) << 26;
		}
	}
}

static int basic_leaves(struct builder *b)
{
	const struct x86_topology *t = &b->cfg->topo;
	unsigned per_socket = t->cores * t->threads;
	unsigned ids = 1u << (bits_for(t->threads) + bits_for(t->cores));
	struct kvm_cpuid_entry2 *e = find(b, 1, 0);
	bool level_1f;
	int r;

	if (e) {
		e->ebx =
			(e->ebx & 0x0000FF00) | (b->apic_id & 0xFF) << 24 | MIN(ids, 255) << 16;
		e->ecx |= L1_ECX_HYPERVISOR;
		e->ecx &= ~L1_ECX_OSXSAVE;
		e->edx &= ~L1_EDX_HTT;
		if (per_socket > 1) {
			e->edx |= L1_EDX_HTT;
		}
	}
	cache_leaf(b, 4);
	e = find(b, 0, 0);
	if (e && e->eax < 0xB) {
		e->eax = 0xB;
	}
	level_1f = e && e->eax >= 0x1F;
	r = topology_leaf(b, 0xB);
	if (r == 0 && level_1f) {
		r = topology_leaf(b, 0x1F);
	}
	zero_leaf(b, 0x12); /* SGX */
	zero_leaf(b, 0x14); /* processor trace */
	zero_leaf(b, 0x1C); /* last branch records */
	return r;
}

static int extended_leaves(struct builder *b)
{
	const struct x86_topology *t = &b->cfg->topo;
	unsigned tb = bits_for(t->threads), cb = bits_for(t->cores);
	unsigned per_socket = t->cores * t->threads;
	struct kvm_cpuid_entry2 *e = find(b, 0x80000000, 0);

	if (e && e->eax < 0x80000008) {
		e->eax = 0x80000008;
	}
	e = find(b, 0x80000008, 0);
	if (!e) {
		int r = append(
			b, (struct kvm_cpuid_entry2){.function = 0x80000008, .eax = 48 << 8});
		if (r < 0) {
			return r;
		}
		e = find(b, 0x80000008, 0);
	}
	e->eax = (e->eax & 0x00FFFF00) | b->cfg->phys_bits;
	if ((e->eax >> 16 & 0xFF) >= b->cfg->phys_bits) {
		e->eax &= 0x0000FFFF; /* a limit on guest addresses that is none */
	}
	if (b->vendor == X86_AMD) {
		e->ecx = (e->ecx & 0xFFFF0000) | (tb + cb) << 12 | MIN(per_socket - 1, 255);
	}
	zero_leaf(b, 0x8000000A); /* SVM */
	zero_leaf(b, 0x8000001B); /* instruction based sampling */
	zero_leaf(b, 0x8000001F); /* memory encryption */
	zero_leaf(b, 0x80000026); /* topology: leaf 0xB says it */
	e = find(b, 0x80000001, 0);
	if (e && b->vendor == X86_AMD) {
		e->ecx &= ~E1_ECX_CMP_LEGACY;
		if (per_socket > 1) {
			e->ecx |= E1_ECX_CMP_LEGACY;
		}
	}
	if (!e || !(e->ecx & E1_ECX_TOPOEXT)) {
		zero_leaf(b, 0x8000001D);
		zero_leaf(b, 0x8000001E);
		return 0;
	}
	cache_leaf(b, 0x8000001D);
	e = find(b, 0x8000001E, 0);
	if (e) {
		e->eax = b->apic_id;
		e->ebx = (t->threads - 1) << 8 | (b->apic_id >> tb & ((1u << cb) - 1) & 0xFF);
		e->ecx = b->apic_id >> (tb + cb) & 0xFF; /* one node per socket */
		e->edx = 0;
	}
	return 0;
}

static void kvm_leaves(struct builder *b)
{
	struct kvm_cpuid_entry2 *e = find(b, KVM_CPUID_LEAF_FEATURES, 0);

	if (e && x86_apic_id_max(&b->cfg->topo) > 254) {
		e->eax |= 1u << KVM_FEATURE_EXT_DEST_BIT;
	}
}

int x86_cpuid_build(const struct x86_cpuid_config *cfg, unsigned index, struct kvm_cpuid2 **out,
		    struct err *err)
{
	struct builder b = {
		.cfg = cfg,
		.apic_id = x86_apic_id(&cfg->topo, index),
		.vendor = x86_cpuid_vendor(cfg->supported),
	};
	const struct kvm_cpuid2 *s = cfg->supported;
	int r;

	if (s->nent > MAX_LEAVES) {
		return err_set(err, E2BIG, "KVM reports %u CPUID leaves, NEMU takes %d",
			       s->nent, MAX_LEAVES);
	}
	b.c = calloc(1, sizeof(*b.c) + MAX_LEAVES * sizeof(b.c->entries[0]));
	if (!b.c) {
		return err_set(err, ENOMEM, "no memory for CPUID");
	}
	b.c->nent = s->nent;
	memcpy(b.c->entries, s->entries, s->nent * sizeof(s->entries[0]));
	r = apply_features(&b, err);
	if (r < 0) {
		goto free_cpuid;
	}
	trim_xsave(&b);
	r = basic_leaves(&b);
	if (r == 0) {
		r = extended_leaves(&b);
	}
	if (r < 0) {
		err_set(err, -r, "KVM reports too many CPUID leaves to add the topology");
		goto free_cpuid;
	}
	kvm_leaves(&b);
	*out = b.c;
	return 0;

free_cpuid:
	free(b.c);
	return r;
}
