/*
 * The boot order for firmware, as OpenFirmware paths. IEEE 1275, PCI bus binding 2.1, 2.2.1.3:
 * node name "@" slot, "," function unless that is 0, in hexadecimal.
 *
 *   /pci@i0cf8/scsi@3/disk@0,0                   virtio-blk (class: SCSI storage) on the root bus
 *   /pci@i0cf8/pci-bridge@1/scsi@0/disk@0,0      behind the root port in slot 1
 *   /pci@i0cf8/ethernet@4/ethernet-phy@0         virtio-net
 *
 * OVMF starts only from what is named, if anything is named; without the file from everything.
 * Bus numbers are not in the paths, so they are right before firmware has assigned any.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "machine/bootorder.h"

#define ROOT "/pci@i0cf8" /* mechanism 1, at port 0xCF8 */

int bootorder_add(struct bootorder *b, const char *id, enum boot_kind kind, uint32_t index,
		  struct err *err)
{
	struct boot_entry *e;

	for (size_t i = 0; i < b->count && index != BOOTINDEX_NONE; i++) {
		if (b->entry[i].index == index) {
			return err_set(
				err, EEXIST,
				"bootindex=%u is that of %s already; give each device its "
				"own",
				index, b->entry[i].id);
		}
	}
	e = realloc(b->entry, (b->count + 1) * sizeof(*e));
	if (!e) {
		return err_set(err, ENOMEM, "bootindex: out of memory");
	}
	b->entry = e;
	e += b->count++;
	*e = (struct boot_entry){.kind = kind, .index = index};
	snprintf(e->id, sizeof(e->id), "%s", id);
	return 0;
}

void bootorder_fini(struct bootorder *b)
{
	free(b->entry);
	*b = (struct bootorder){0};
}

static void put_node(FILE *out, const struct pci_func *f, const char *name)
{
	if (f->bus->bridge) {
		put_node(out, f->bus->bridge, "pci-bridge");
	} else {
		fputs(ROOT, out);
	}
	fprintf(out, "/%s@%x", name, f->devfn >> 3);
	if (f->devfn & 7) {
		fprintf(out, ",%x", f->devfn & 7);
	}
}

static void put_path(FILE *out, const struct pci_func *f, enum boot_kind kind)
{
	static const char *const node[] = {[BOOT_DISK] = "scsi", [BOOT_NET] = "ethernet"};
	static const char *const unit[] = {
		[BOOT_DISK] = "disk@0,0",
		[BOOT_NET] = "ethernet-phy@0",
	};

	put_node(out, f, node[kind]);
	fprintf(out, "/%s\n", unit[kind]);
}

static int by_index(const void *a, const void *b)
{
	uint32_t x = ((const struct boot_entry *)a)->index;
	uint32_t y = ((const struct boot_entry *)b)->index;

	return x < y ? -1 : x > y;
}

/* Writes one entry, or, in the order of the bus, those of a kind. */
struct writing {
	FILE *out;
	const struct bootorder *b;
	const struct boot_entry *only; /* NULL: all of the kind */
	enum boot_kind kind;
};

static int write_func(struct pci_func *f, void *arg)
{
	const struct writing *w = arg;

	for (size_t i = 0; i < w->b->count; i++) {
		const struct boot_entry *e = &w->b->entry[i];

		if ((w->only ? e == w->only : e->kind == w->kind) && !strcmp(e->id, f->name)) {
			put_path(w->out, f, e->kind);
		}
	}
	return 0;
}

int bootorder_text(struct bootorder *b, struct pci_bus *root, const char *order, char **text,
		   struct err *err)
{
	bool indexed = false;
	size_t len = 0;
	FILE *out;

	*text = NULL;
	for (size_t i = 0; i < b->count; i++) {
		indexed |= b->entry[i].index != BOOTINDEX_NONE;
	}
	if (indexed && *order) {
		return err_set(
			err, EINVAL,
			"-boot order=%s contradicts bootindex= of a device; use bootindex= "
			"alone",
			order);
	}
	if (!indexed && !*order) {
		return 0;
	}
	out = open_memstream(text, &len);
	if (!out) {
		return err_set(err, ENOMEM, "bootindex: out of memory");
	}
	if (indexed) {
		qsort(b->entry, b->count, sizeof(*b->entry), by_index);
	}
	for (size_t i = 0; indexed && i < b->count; i++) {
		if (b->entry[i].index != BOOTINDEX_NONE) {
			struct writing w = {.out = out, .b = b, .only = &b->entry[i]};

			pci_for_each(root, write_func, &w);
		}
	}
	for (; *order; order++) {
		struct writing w = {
			.out = out,
			.b = b,
			.kind = *order == 'c' ? BOOT_DISK : BOOT_NET,
		};

		pci_for_each(root, write_func, &w);
	}
	if (fclose(out)) {
		free(*text);
		*text = NULL;
		return err_set(err, ENOMEM, "bootindex: out of memory");
	}
	return 0;
}
