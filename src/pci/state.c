/*
 * The declared state of a PCI function.
 *
 * Saved is configuration space as it is; loading takes over only the bits that the guest may
 * write (or clear), and refuses a space whose fixed bits are not those of this function: ids,
 * class, header type, BAR types and sizes, capability list. Other read-only bits (presence,
 * link state) are the host's and stay as they are.
 *
 * Untrusted: all of the loaded state. Where BARs overlap in it, the later one is not decoded,
 * as if the guest had written that.
 */
#include <errno.h>
#include <string.h>

#include "pci/msi.h"
#include "pci/msix.h"
#include "pci/pci_int.h"
#include "spec/pci.h"

static const struct state_field vec_fields[] = {
	STATE_F_U64(struct pci_vec_state, addr),
	STATE_F_U32(struct pci_vec_state, data),
	STATE_F_RANGE(STATE_U32, struct pci_vec_state, ctrl, 0, PCI_MSIX_ENTRY_MASKED),
	STATE_F_BOOL(struct pci_vec_state, pending),
	STATE_F_END,
};
static const struct state_desc vec_desc = {
	.name = "pci-vec",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct pci_vec_state),
	.fields = vec_fields,
};

static const struct state_field func_fields[] = {
	STATE_F_BYTES(struct pci_func_state, cfg),
	STATE_F_VARRAY(struct pci_func_state, vec, &vec_desc, nvec),
	STATE_F_U32(struct pci_func_state, msi_pending),
	STATE_F_END,
};
const struct state_desc pci_func_state_desc = {
	.name = "pci-func",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct pci_func_state),
	.fields = func_fields,
};

void pci_func_save(struct pci_func *f, struct pci_func_state *st)
{
	if (f->msi) {
		st->msi_pending = msi_pending(f);
	}
	if (f->msix) {
		msix_save(f, st);
	}
	memcpy(st->cfg, f->cfg, sizeof(st->cfg));
}

/* Do the bits that the guest cannot write agree in [off, off + len)? */
static bool fixed_equal(const struct pci_func *f, const struct pci_func_state *st, unsigned off,
			unsigned len)
{
	for (unsigned i = off; i < off + len; i++) {
		if ((f->cfg[i] ^ st->cfg[i]) & ~(f->wmask[i] | f->w1c[i])) {
			return false;
		}
	}
	return true;
}

static int load_check(const struct pci_func *f, const struct pci_func_state *st,
		      struct err *err)
{
	unsigned cap = f->cfg[PCI_CAPABILITIES];

	if (!fixed_equal(f, st, 0, PCI_HEADER_SIZE)) {
		return err_set(
			err, EINVAL,
			"%s: the saved PCI header is of another device, or has other BARs",
			f->name);
	}
	for (; cap; cap = f->cfg[cap + PCI_CAP_NEXT]) {
		if (!fixed_equal(f, st, cap, 2)) {
			return err_set(err, EINVAL, "%s: the saved PCI capabilities are others",
				       f->name);
		}
	}
	if (st->nvec != msix_nvec(f)) {
		return err_set(err, EINVAL,
			       "%s: the saved state has %u interrupt vectors, the device %u",
			       f->name, st->nvec, msix_nvec(f));
	}
	if (f->pm_cap && !pci_pm_state_valid(st->cfg[f->pm_cap + PCI_PM_PMCSR])) {
		return err_set(err, EINVAL, "%s: the saved power state does not exist",
			       f->name);
	}
	return 0;
}

int pci_func_load(struct pci_func *f, const struct pci_func_state *st, struct err *err)
{
	int rc = load_check(f, st, err);

	if (rc < 0) {
		return rc;
	}
	pci_func_created(f);
	if (f->msi) {
		msi_reset(f);
	}
	for (unsigned off = 0; off < PCI_CFG_SIZE; off += 4) {
		uint32_t now = pci_get32(f, off), saved, w, c;

		memcpy(&saved, &st->cfg[off], 4);
		memcpy(&w, &f->wmask[off], 4);
		memcpy(&c, &f->w1c[off], 4);
		pci_set32(f, off, (now & ~(w | c)) | (saved & (w | c)));
	}
	if (pci_is_bridge(f)) {
		pci_port_update(f);
		pci_interrupts_update(f);
	}
	pci_bars_update(f);
	if (f->msix) {
		msix_restore(f, st);
	}
	if (f->msi) {
		msi_restore(f, st->msi_pending);
	}
	return 0;
}
