/*
 * The CPUID of each vCPU. See cpuid.h.
 *
 * Rule: what the guest sees of -cpu host is what KVM says it supports on this host, minus what
 * NEMU cannot keep (features.c says which and why), minus what the user switched off with all that
 * needs it, and with everything that depends on the place of a vCPU written from -smp
 * (topology.c). A baseline model starts from its own leaves instead (cpu_model.c) and must be
 * there whole. KVM itself fills in at run time what depends on control registers (OSXSAVE,
 * APIC, sizes of leaf 0xD).
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86/cpuid_int.h"
#include "base/util.h"

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

struct kvm_cpuid_entry2 *x86_leaf(struct x86_builder *b, uint32_t function, uint32_t index)
{
	return (struct kvm_cpuid_entry2 *)x86_cpuid_find(b->c, function, index);
}

static void zero(struct kvm_cpuid_entry2 *e)
{
	e->eax = e->ebx = e->ecx = e->edx = 0;
}

void x86_leaf_zero(struct x86_builder *b, uint32_t function)
{
	for (uint32_t i = 0; i < b->c->nent; i++) {
		if (b->c->entries[i].function == function) {
			zero(&b->c->entries[i]);
		}
	}
}

void x86_leaf_drop(struct x86_builder *b, uint32_t function)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < b->c->nent; i++) {
		if (b->c->entries[i].function != function) {
			b->c->entries[n++] = b->c->entries[i];
		}
	}
	b->c->nent = n;
}

void x86_leaf_append(struct x86_builder *b, struct kvm_cpuid_entry2 e)
{
	if (b->c->nent == X86_MAX_LEAVES) {
		b->full = true;
		return;
	}
	b->c->entries[b->c->nent++] = e;
}

/* --- features --- */

static bool shows(const struct kvm_cpuid2 *c, const struct x86_feature *f)
{
	const struct kvm_cpuid_entry2 *e = x86_cpuid_find(c, f->leaf, f->subleaf);

	return e && *x86_cpuid_reg((struct kvm_cpuid_entry2 *)e, f->reg) >> f->bit & 1;
}

static bool shows_all(const struct kvm_cpuid2 *c, unsigned f)
{
	for (unsigned i = f; i < x86_feature_end(f); i++) {
		if (!shows(c, &x86_features[i])) {
			return false;
		}
	}
	return true;
}

bool x86_cpuid_offers(const struct kvm_cpuid2 *supported, const char *feature)
{
	int f = x86_feature_find(feature);

	assert(f >= 0);
	/* "hypervisor" is nothing that a processor would have to support, nor KVM list */
	return !strcmp(feature, "hypervisor") || shows_all(supported, f);
}

bool x86_builder_has(struct x86_builder *b, const char *feature)
{
	int f = x86_feature_find(feature);

	assert(f >= 0);
	return shows_all(b->c, f);
}

/* Makes the leaf of a feature if there is none, and the leaf reachable. */
static struct kvm_cpuid_entry2 *feature_leaf(struct x86_builder *b, const struct x86_feature *f)
{
	struct kvm_cpuid_entry2 *e = x86_leaf(b, f->leaf, f->subleaf), *max;
	struct kvm_cpuid_entry2 fresh = {.function = f->leaf, .index = f->subleaf};

	if (e) {
		return e;
	}
	if (f->leaf == 7 || f->leaf == 0xD) {
		fresh.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
	}
	x86_leaf_append(b, fresh);
	max = f->leaf == 7 ? x86_leaf(b, 7, 0) : x86_leaf(b, f->leaf & 0xC0000000, 0);
	if (max && max->eax < (f->leaf == 7 ? f->subleaf : f->leaf)) {
		max->eax = f->leaf == 7 ? f->subleaf : f->leaf;
	}
	return x86_leaf(b, f->leaf, f->subleaf);
}

static void feature_set(struct x86_builder *b, unsigned f, bool on)
{
	for (unsigned i = f; i < x86_feature_end(f); i++) {
		const struct x86_feature *x = &x86_features[i];
		struct kvm_cpuid_entry2 *e =
			on ? feature_leaf(b, x) : x86_leaf(b, x->leaf, x->subleaf);

		if (e && on) {
			*x86_cpuid_reg(e, x->reg) |= 1u << x->bit;
		} else if (e) {
			*x86_cpuid_reg(e, x->reg) &= ~(1u << x->bit);
		}
	}
}

static void feature_clear(struct x86_builder *b, const char *name)
{
	int f = x86_feature_find(name);

	assert(f >= 0);
	feature_set(b, f, false);
}

static void host_features(struct x86_builder *b)
{
	const struct x86_cpu_model *m = b->cfg->model;

	feature_set(b, x86_feature_find("hypervisor"), true);
	for (unsigned i = 0; i < x86_feature_count; i++) {
		if (x86_features[i].refused) {
			feature_set(b, i, false);
		}
	}
	if (!m->not_migratable) {
		feature_clear(b, "invtsc"); /* a promise about the next host */
	}
	if (m->no_pmu) {
		feature_clear(b, "pdcm");
		feature_clear(b, "perfctr-core");
		feature_clear(b, "perfctr-nb");
		x86_leaf_zero(b, 0xA);
		x86_leaf_zero(b, 0x80000022);
	}
}

static int base_features(struct x86_builder *b, struct err *err)
{
	const struct x86_base_model *m = b->cfg->model->base;
	char missing[320] = "";
	const char *name;
	size_t n = 0;

	for (unsigned i = 0; (name = x86_base_model_feature(m, i)); i++) {
		if (x86_cpuid_offers(b->cfg->supported, name)) {
			feature_set(b, x86_feature_find(name), true);
		} else if (n < sizeof(missing)) {
			n += snprintf(missing + n, sizeof(missing) - n, "%s%s", n ? ", " : "",
				      name);
		}
	}
	if (n) {
		return err_set(err, EINVAL,
			       "-cpu %s: this host lacks %s: use a lower level or another host",
			       m->name, missing);
	}
	return 0;
}

/* A feature goes with what it needs, unless the user asked for it. */
static int drop_orphans(struct x86_builder *b, struct err *err)
{
	const struct x86_cpu_model *m = b->cfg->model;
	bool again = true;

	for (unsigned i = 0; i < m->changes; i++) {
		const struct x86_feature *f = &x86_features[m->change[i].feature];

		if (m->change[i].on && f->needs && !x86_builder_has(b, f->needs)) {
			return err_set(
				err, EINVAL,
				"-cpu: feature '%s' needs '%s', which is off: add +%s or "
				"leave +%s out",
				f->name, f->needs, f->needs, f->name);
		}
	}
	while (again) { /* ends: each round but the last clears a bit */
		again = false;
		for (unsigned i = 0; i < x86_feature_count; i++) {
			const struct x86_feature *f = &x86_features[i];

			if (f->needs && shows(b->c, f) && !x86_builder_has(b, f->needs)) {
				feature_set(b, i, false);
				again = true;
			}
		}
	}
	return 0;
}

static int apply_features(struct x86_builder *b, struct err *err)
{
	const struct x86_cpu_model *m = b->cfg->model;
	int r = 0;

	if (m->base) {
		r = base_features(b, err);
	} else {
		host_features(b);
	}
	for (unsigned i = 0; i < m->changes && r == 0; i++) {
		unsigned f = m->change[i].feature;

		if (m->change[i].on &&
		    !x86_cpuid_offers(b->cfg->supported, x86_features[f].name)) {
			r = err_set(err, EINVAL,
				    "-cpu: KVM does not offer feature '%s' on this host: "
				    "leave it out",
				    x86_features[f].name);
		} else {
			feature_set(b, f, m->change[i].on);
		}
	}
	return r ? r : drop_orphans(b, err);
}

/* XCR0 components (SDM vol. 1, 13.1) go with the features they hold the registers of. */
static void trim_xsave(struct x86_builder *b)
{
	static const struct {
		uint64_t mask;
		const char *feature;
	} parts[] = {
		{1u << 2, "avx"}, {3u << 3, "mpx"},	  {7u << 5, "avx512f"},
		{1u << 9, "pku"}, {3u << 17, "amx-tile"},
	};
	struct kvm_cpuid_entry2 *d = x86_leaf(b, 0xD, 0), *sub;
	uint64_t xcr0;
	uint32_t size = 512 + 64;

	if (!d) {
		return;
	}
	if (!x86_builder_has(b, "xsave")) {
		x86_leaf_zero(b, 0xD);
		x86_leaf_zero(b, 0x1D);
		x86_leaf_zero(b, 0x1E);
		return;
	}
	xcr0 = d->eax | (uint64_t)d->edx << 32;
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		if (!x86_builder_has(b, parts[i].feature)) {
			xcr0 &= ~parts[i].mask;
		}
	}
	if (!x86_builder_has(b, "amx-tile")) {
		x86_leaf_zero(b, 0x1D);
		x86_leaf_zero(b, 0x1E);
	}
	for (unsigned i = 2; i < 63; i++) {
		sub = x86_leaf(b, 0xD, i);
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
	sub = x86_leaf(b, 0xD, 1);
	if (sub && !x86_builder_has(b, "xsaves")) {
		sub->ecx = sub->edx = 0;
	}
	if (sub && !x86_builder_has(b, "shstk") && !x86_builder_has(b, "ibt")) {
		sub->ecx &= ~(3u << 11);
	}
}

/* What a guest cannot use here, whatever the host has. */
static void drop_untold(struct x86_builder *b)
{
	x86_leaf_zero(b, 0x12);	      /* SGX */
	x86_leaf_zero(b, 0x14);	      /* processor trace */
	x86_leaf_zero(b, 0x1C);	      /* last branch records */
	x86_leaf_zero(b, 0x8000000A); /* SVM */
	x86_leaf_zero(b, 0x8000001B); /* instruction based sampling */
	x86_leaf_zero(b, 0x8000001F); /* memory encryption */
}

static int build(struct x86_builder *b, struct err *err)
{
	const struct kvm_cpuid2 *s = b->cfg->supported;
	int r;

	if (b->cfg->model->base) {
		x86_base_model_leaves(b);
	} else {
		b->c->nent = s->nent;
		memcpy(b->c->entries, s->entries, s->nent * sizeof(s->entries[0]));
	}
	r = apply_features(b, err);
	if (r < 0) {
		return r;
	}
	if (x86_topology_wide(&b->cfg->topo) && !x86_builder_has(b, "x2apic")) {
		return err_set(
			err, EINVAL,
			"-smp: APIC ids above 254 need x2apic, which -cpu switches off: leave "
			"-x2apic out");
	}
	trim_xsave(b);
	drop_untold(b);
	x86_topology_leaves(b);
	if (b->cfg->model->base) {
		x86_base_model_finish(b);
	}
	return b->full ? err_set(err, ENOSPC,
				 "KVM reports too many CPUID leaves to add the topology")
		       : 0;
}

int x86_cpuid_build(const struct x86_cpuid_config *cfg, unsigned index, struct kvm_cpuid2 **out,
		    struct err *err)
{
	struct x86_builder b = {
		.cfg = cfg,
		.apic_id = x86_apic_id(&cfg->topo, index),
		.vendor = x86_cpuid_vendor(cfg->supported),
	};
	int r;

	if (cfg->supported->nent > X86_MAX_LEAVES) {
		return err_set(err, E2BIG, "KVM reports %u CPUID leaves, NEMU takes %d",
			       cfg->supported->nent, X86_MAX_LEAVES);
	}
	b.c = calloc(1, sizeof(*b.c) + X86_MAX_LEAVES * sizeof(b.c->entries[0]));
	if (!b.c) {
		return err_set(err, ENOMEM, "no memory for CPUID");
	}
	r = build(&b, err);
	if (r < 0) {
		free(b.c);
		return r;
	}
	*out = b.c;
	return 0;
}
