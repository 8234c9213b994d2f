/*
 * MSI: the capability in configuration space, on top of the vectors of vec.h.
 *
 * Everything but the pending bits stands in configuration space and is read from there whenever
 * it may have changed. A vector is live when MSI is enabled, the vector is among the enabled
 * ones, its mask bit is 0 and the function may master the bus.
 */
#include "pci/msi.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "pci/pci_int.h"
#include "pci/trace.h"
#include "pci/vec.h"
#include "spec/pci.h"

struct msi {
	unsigned cap, nvec;
	_Atomic unsigned enabled; /* vectors that the guest enabled; 0: off */
	struct pci_vec vec[];
};

static unsigned msi_log2(unsigned n)
{
	return (unsigned)__builtin_ctz(n);
}

/* How many vectors the control word enables. */
static unsigned msi_count(const struct pci_func *f)
{
	uint16_t control = pci_get16(f, f->msi->cap + PCI_MSI_CONTROL);

	if (!(control & PCI_MSI_ENABLE)) {
		return 0;
	}
	return MIN(f->msi->nvec, 1u << ((control & PCI_MSI_ENABLED) >> PCI_MSI_ENABLED_SHIFT));
}

int msi_init(struct pci_func *f, unsigned nvec, struct err *err)
{
	struct msi *m;
	unsigned cap;

	assert(is_pow2(nvec) && nvec <= 32 && !f->msi);
	m = calloc(1, sizeof(*m) + nvec * sizeof(m->vec[0]));
	if (!m) {
		return err_set(err, ENOMEM, "%s: out of memory", f->name);
	}
	cap = pci_cap_add(f, PCI_CAP_MSI, PCI_MSI_SIZE);
	pci_set16(f, cap + PCI_MSI_CONTROL,
		  (uint16_t)(PCI_MSI_64 | PCI_MSI_MASKING |
			     msi_log2(nvec) << PCI_MSI_CAPABLE_SHIFT));
	pci_wmask_set16(f, cap + PCI_MSI_CONTROL, PCI_MSI_ENABLE | PCI_MSI_ENABLED);
	pci_wmask_set32(f, cap + PCI_MSI_ADDRESS, ~UINT32_C(3));
	pci_wmask_set32(f, cap + PCI_MSI_UPPER_ADDRESS, UINT32_MAX);
	pci_wmask_set16(f, cap + PCI_MSI_DATA, UINT16_MAX);
	pci_wmask_set32(f, cap + PCI_MSI_MASK, (uint32_t)((UINT64_C(1) << nvec) - 1));
	m->cap = cap;
	m->nvec = nvec;
	for (unsigned i = 0; i < nvec; i++) {
		pci_vec_init(&m->vec[i], f->vm, f->name);
	}
	f->msi = m;
	return 0;
}

void msi_fini(struct pci_func *f)
{
	if (!f->msi) {
		return;
	}
	for (unsigned i = 0; i < f->msi->nvec; i++) {
		pci_vec_fini(&f->msi->vec[i]);
	}
	free(f->msi);
	f->msi = NULL;
}

bool msi_enabled(const struct pci_func *f)
{
	return f->msi && atomic_load_explicit(&f->msi->enabled, memory_order_relaxed) > 0;
}

void msi_trigger(struct pci_func *f, unsigned vec)
{
	struct msi *m = f->msi;
	unsigned enabled = m ? atomic_load_explicit(&m->enabled, memory_order_relaxed) : 0;

	if (enabled && vec < m->nvec) {
		trace_pci_msi_trigger(f->name, vec);
		pci_vec_trigger(&m->vec[vec & (enabled - 1)]);
	}
}

void msi_cfg_changed(struct pci_func *f)
{
	struct msi *m = f->msi;
	unsigned n = msi_count(f);
	bool master = pci_bus_master(f);
	uint32_t mask = pci_get32(f, m->cap + PCI_MSI_MASK);
	uint16_t data = pci_get16(f, m->cap + PCI_MSI_DATA);
	uint64_t addr = pci_get32(f, m->cap + PCI_MSI_ADDRESS) |
			(uint64_t)pci_get32(f, m->cap + PCI_MSI_UPPER_ADDRESS) << 32;

	atomic_store_explicit(&m->enabled, n, memory_order_relaxed);
	for (unsigned i = 0; i < m->nvec; i++) {
		enum pci_vec_mode mode = PCI_VEC_OFF;

		if (i < n) {
			mode = master && !(mask >> i & 1) ? PCI_VEC_LIVE : PCI_VEC_MASKED;
		}
		m->vec[i].source = pci_requester_id(f);
		pci_vec_set(&m->vec[i], mode, addr, n ? (data & ~(n - 1)) | i : 0);
	}
}

void msi_reset(struct pci_func *f)
{
	struct msi *m = f->msi;

	atomic_store_explicit(&m->enabled, 0, memory_order_relaxed);
	for (unsigned i = 0; i < m->nvec; i++) {
		pci_vec_reset(&m->vec[i]);
	}
	pci_set32(f, m->cap + PCI_MSI_PENDING, 0);
	msi_cfg_changed(f);
}

uint32_t msi_pending(struct pci_func *f)
{
	uint32_t bits = 0;

	for (unsigned i = 0; f->msi && i < f->msi->nvec; i++) {
		bits |= (uint32_t)pci_vec_pending(&f->msi->vec[i]) << i;
	}
	return bits;
}

/* Pending bits first, while everything is masked; then what is live fires them. */
void msi_restore(struct pci_func *f, uint32_t pending)
{
	for (unsigned i = 0; i < f->msi->nvec; i++) {
		struct pci_vec *v = &f->msi->vec[i];

		if (pending >> i & 1) {
			pci_vec_set(v, PCI_VEC_MASKED, 0, 0);
			pci_vec_trigger(v);
		}
	}
	msi_cfg_changed(f);
}

static void pending_refresh(void *arg)
{
	struct pci_func *f = arg;

	pci_set32(f, f->msi->cap + PCI_MSI_PENDING, msi_pending(f));
}

void msi_cfg_reading(struct pci_func *f, unsigned off, unsigned len)
{
	if (pci_overlaps(off, len, f->msi->cap + PCI_MSI_PENDING, 4)) {
		loop_call(f->vm->loop, pending_refresh, f);
	}
}
