/*
 * One message-signalled interrupt vector, as MSI and MSI-X share it: a GSI with an eventfd
 *bound to it while the vector may fire.
 *
 *	off ──▶ masked ◀──▶ live          off: nothing is kept; masked: triggers become pending
 *
 * The word holds {MASKED, OFF, PENDING}; live is 0. A trigger that finds it live writes to the
 * eventfd, one that finds it masked sets PENDING; both are lock-free against the control loop's
 * changes. Leaving live, the word changes first and then the eventfd is unbound, so a trigger
 * that was overtaken in between leaves its count in the eventfd, where it is found later as
 * pending: nothing fires after the change, nothing is lost.
 *
 * Threads: pci_vec_trigger() any; the rest the control loop.
 */
#ifndef PCI_VEC_H
#define PCI_VEC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "event/loop.h"

struct vm;

struct pci_vec {
	_Atomic uint32_t word;
	int fd;	      /* made on first use and kept, because kernel back ends hold it; -1 */
	int gsi;      /* -1: none; kept from the first time it is live until pci_vec_reset() */
	bool bound;   /* fd is bound to gsi, or relayed */
	bool relayed; /* no GSI could be had: the control loop sends the messages */
	uint64_t addr;
	uint32_t data;
	uint32_t source; /* requester id that the next pci_vec_set() sends with; the owner sets it */
	uint32_t routed; /* … and that the route has */
	struct loop_fd relay;
	struct vm *vm;
	const char *name; /* for logs; not owned */
};

void pci_vec_init(struct pci_vec *v, struct vm *vm, const char *name);
void pci_vec_fini(struct pci_vec *v);
/* Off, without a GSI. */
void pci_vec_reset(struct pci_vec *v);
enum pci_vec_mode { PCI_VEC_OFF, PCI_VEC_MASKED, PCI_VEC_LIVE };
/* Going live fires once if something is pending. addr and data matter only for live. */
void pci_vec_set(struct pci_vec *v, enum pci_vec_mode mode, uint64_t addr, uint32_t data);
void pci_vec_trigger(struct pci_vec *v);
bool pci_vec_pending(struct pci_vec *v);
/* The eventfd, made if there is none yet; -errno. */
int pci_vec_eventfd(struct pci_vec *v);

#endif
