/*
 * The leaves of CPUID that say where a vCPU stands: from -smp and its index (Intel SDM vol. 2A
 * "CPUID", leaves 1, 4, 0xB and 0x1F; AMD APM vol. 3 E.4, leaves 80000008h, 8000001Dh and
 * 8000001Eh).
 *
 * APIC ids are socket | die | core | thread, each field a whole number of bits. Caches: levels 1
 * and 2 belong to a core, level 3 to a die. A die is shown by leaf 0x1F (on both vendors, Linux
 * reads it on both) and, on AMD, as a node of the socket.
 * Pure functions, any thread.
 */
#include "arch/x86/cpuid_int.h"
#include "base/util.h"

#define KVM_FEATURE_EXT_DEST_BIT 15

/* leaf 1 */
#define L1_ECX_OSXSAVE (1u << 27)
#define L1_EDX_HTT     (1u << 28)
/* leaf 80000001h ECX */
#define E1_ECX_CMP_LEGACY (1u << 1)
#define AMD_ZEN_FAMILY	  0x17u
#define E1_ECX_TOPOEXT	  (1u << 22)

/* Leaf 0xB and 0x1F: level types */
#define LEVEL_SMT  1
#define LEVEL_CORE 2
#define LEVEL_DIE  5

static unsigned bits_for(unsigned n)
{
	return n <= 1 ? 0 : 32 - __builtin_clz(n - 1);
}

/* Where the fields of an APIC id begin. */
struct shifts {
	unsigned core, die, socket;
};

static struct shifts shifts_of(const struct x86_topology *t)
{
	struct shifts s;

	s.core = bits_for(t->threads);
	s.die = s.core + bits_for(t->cores);
	s.socket = s.die + bits_for(t->dies);
	return s;
}

static unsigned per_socket(const struct x86_topology *t)
{
	return t->dies * t->cores * t->threads;
}

uint32_t x86_apic_id(const struct x86_topology *t, unsigned index)
{
	struct shifts s = shifts_of(t);
	unsigned thread = index % t->threads;
	unsigned core = index / t->threads % t->cores;
	unsigned die = index / t->threads / t->cores % t->dies;

	return index / per_socket(t) << s.socket | die << s.die | core << s.core | thread;
}

uint32_t x86_apic_id_max(const struct x86_topology *t)
{
	return x86_apic_id(t, t->sockets * per_socket(t) - 1);
}

bool x86_topology_wide(const struct x86_topology *t)
{
	return x86_apic_id_max(t) > 254;
}

/* The sub-leaves of 0xB or 0x1F: one for each level, ended by an invalid one. */
static void levels(struct x86_builder *b, uint32_t function, bool dies)
{
	const struct x86_topology *t = &b->cfg->topo;
	struct shifts s = shifts_of(t);
	const struct {
		unsigned type, shift, count;
	} level[] = {
		{LEVEL_SMT, s.core, t->threads},
		{LEVEL_CORE, dies ? s.die : s.socket,
		 dies ? t->cores * t->threads : per_socket(t)},
		{LEVEL_DIE, s.socket, per_socket(t)},
	};
	unsigned n = dies ? 3 : 2;

	x86_leaf_drop(b, function);
	for (unsigned i = 0; i <= n; i++) {
		struct kvm_cpuid_entry2 e = {
			.function = function,
			.index = i,
			.ecx = i,
			.edx = b->apic_id,
			.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
		};

		if (i < n) {
			e.eax = level[i].shift;
			e.ebx = level[i].count;
			e.ecx |= level[i].type << 8;
		}
		x86_leaf_append(b, e);
	}
}

/* Leaf 4 and 8000001Dh: how many ids share each cache. */
static void cache_leaf(struct x86_builder *b, uint32_t function)
{
	struct shifts s = shifts_of(&b->cfg->topo);

	for (uint32_t i = 0; i < b->c->nent; i++) {
		struct kvm_cpuid_entry2 *e = &b->c->entries[i];
		unsigned level = e->eax >> 5 & 7, share;

		if (e->function != function || !(e->eax & 0x1F)) {
			continue;
		}
		share = (1u << (level >= 3 ? s.die : s.core)) - 1;
		e->eax = (e->eax & 0x3FFF) | MIN(share, 0xFFF) << 14;
		if (function == 4) {
			e->eax |= MIN((1u << (s.socket - s.core)) - 1, 63) << 26;
		}
	}
}

static void basic_leaves(struct x86_builder *b)
{
	const struct x86_topology *t = &b->cfg->topo;
	bool dies = t->dies > 1;
	uint32_t need = dies ? 0x1F : 0xB;
	struct kvm_cpuid_entry2 *e = x86_leaf(b, 1, 0);

	if (e) {
		e->ebx = (e->ebx & 0x0000FF00) | (b->apic_id & 0xFF) << 24 |
			 MIN(1u << shifts_of(t).socket, 255) << 16;
		e->ecx &= ~L1_ECX_OSXSAVE;
		e->edx &= ~L1_EDX_HTT;
		if (per_socket(t) > 1) {
			e->edx |= L1_EDX_HTT;
		}
	}
	cache_leaf(b, 4);
	e = x86_leaf(b, 0, 0);
	if (e) {
		e->eax = MAX(e->eax, need);
		need = e->eax;
	}
	levels(b, 0xB, false);
	if (need >= 0x1F) {
		levels(b, 0x1F, dies);
	}
}

static unsigned family(struct x86_builder *b)
{
	const struct kvm_cpuid_entry2 *e = x86_leaf(b, 1, 0);
	unsigned base = e ? e->eax >> 8 & 0xF : 0;

	return base == 0xF ? base + (e->eax >> 20 & 0xFF) : base;
}

/* An extended leaf that old processors lack. */
static void extended_leaf_need(struct x86_builder *b, uint32_t function)
{
	struct kvm_cpuid_entry2 *e = x86_leaf(b, 0x80000000, 0);

	if (e) {
		e->eax = MAX(e->eax, function);
	}
	if (!x86_leaf(b, function, 0)) {
		x86_leaf_append(b, (struct kvm_cpuid_entry2){.function = function});
	}
}

static void amd_leaves(struct x86_builder *b)
{
	const struct x86_topology *t = &b->cfg->topo;
	struct shifts s = shifts_of(t);
	struct kvm_cpuid_entry2 *e = x86_leaf(b, 0x80000008, 0);

	if (e) {
		e->ecx = (e->ecx & 0xFFFF0000) | s.socket << 12 | MIN(per_socket(t) - 1, 255);
	}
	e = x86_leaf(b, 0x80000001, 0);
	if (e) {
		e->ecx &= ~E1_ECX_CMP_LEGACY;
		if (per_socket(t) > 1) {
			e->ecx |= E1_ECX_CMP_LEGACY;
		}
	}
	x86_leaf_zero(b, 0x80000026); /* topology: leaf 0xB says it */
	/* Without TOPOEXT guests take every thread for a core. It is a promise of leaves alone, so a
	 * processor before Bulldozer does not have to have it. */
	if (e && (t->threads > 1 || t->dies > 1)) {
		e->ecx |= E1_ECX_TOPOEXT;
		extended_leaf_need(b, 0x8000001E);
		e = x86_leaf(b, 0x80000001, 0);
	}
	if (!e || !(e->ecx & E1_ECX_TOPOEXT)) {
		x86_leaf_zero(b, 0x8000001D);
		x86_leaf_zero(b, 0x8000001E);
		return;
	}
	cache_leaf(b, 0x8000001D);
	e = x86_leaf(b, 0x8000001E, 0);
	if (e) {
		unsigned core = (b->apic_id & ((1u << s.socket) - 1)) >> s.core;
		/* Before Zen a node is a northbridge, and Linux divides the cores by their number. */
		unsigned nodes = family(b) < AMD_ZEN_FAMILY ? 1 : MIN(t->dies, 8);

		e->eax = b->apic_id;
		e->ebx = (t->threads - 1) << 8 | (core & 0xFF);
		e->ecx = (nodes - 1) << 8 | (b->apic_id >> s.die & 0xFF);
		e->edx = 0;
	}
}

/* The width of addresses. */
static void address_leaf(struct x86_builder *b)
{
	struct kvm_cpuid_entry2 *e;
	bool had = x86_leaf(b, 0x80000008, 0) != NULL;

	extended_leaf_need(b, 0x80000008);
	e = x86_leaf(b, 0x80000008, 0);
	if (e && !had) {
		e->eax = 48 << 8;
	}
	if (!e) {
		return; /* full */
	}
	e->eax = (e->eax & 0x00FFFF00) | b->cfg->phys_bits;
	if ((e->eax >> 16 & 0xFF) >= b->cfg->phys_bits) {
		e->eax &= 0x0000FFFF; /* a limit on guest addresses that is none */
	}
}

void x86_topology_leaves(struct x86_builder *b)
{
	struct kvm_cpuid_entry2 *e;

	basic_leaves(b); /* moves leaves */
	address_leaf(b);
	if (b->vendor == X86_AMD) {
		amd_leaves(b);
	} else {
		x86_leaf_zero(b, 0x8000001D);
		x86_leaf_zero(b, 0x8000001E);
		x86_leaf_zero(b, 0x80000026);
	}
	e = x86_leaf(b, KVM_CPUID_LEAF_FEATURES, 0);
	if (e && x86_topology_wide(&b->cfg->topo)) {
		e->eax |= 1u << KVM_FEATURE_EXT_DEST_BIT;
	}
}
