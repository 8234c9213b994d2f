/*
 * The firmware configuration device.
 * Specification: QEMU Firmware Configuration (fw_cfg) Device; constants in spec/fw_cfg.h.
 *
 * A selector chooses an item and rewinds; the data port and DMA then read it byte after byte.
 * Unknown keys and what lies behind the end of an item read as 0. Writes are refused except to
 * files that were added as writable, and then only by DMA.
 *
 * DMA completes before the port write returns, and its control word is always left 0, even
 * when the request made no sense: release builds of OVMF spin until it is 0 and do not look at
 * the error bit, so a bit left there would hang them.
 *
 * Invariants
 *  1. The descriptor is fetched from guest memory once; nothing is fetched twice.
 *  2. One request copies at most the rest of the item plus MAX_ZERO bytes.
 *  3. The directory is sorted by name, so that keys depend only on the set of files. It is
 *     rebuilt when it is selected, with the sizes that refresh() callbacks report.
 *  4. cur and cur_len are set by a selection and stay valid until the next one; refresh() of
 *     the selected file runs again only through a selection.
 *
 * Threads: control loop only; the bus brings the accesses of vCPUs here.
 * Untrusted: the guest (selector, addresses, lengths, content of writable files).
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "core/bus.h"
#include "core/device.h"
#include "firmware/fw_cfg.h"
#include "firmware/trace.h"
#include "mem/mem.h"
#include "spec/fw_cfg.h"

#define NKEYS FW_CFG_FILE_FIRST /* fixed keys 0..0x1f */

/* How far behind the end of an item one DMA request is answered with zeroes. No firmware asks
 * for more than a few bytes; without a limit a guest could keep the control loop busy for the
 * time it takes to clear 4 GiB. */
#define MAX_ZERO (1 * MiB)

struct item {
	const void *data;
	size_t len;
	void *owned; /* to be freed, or NULL */
};

struct file {
	char name[FW_CFG_MAX_FILE_PATH];
	struct item item;
	fw_cfg_refresh_fn *refresh;
	fw_cfg_written_fn *written;
	void *opaque;
};

struct fw_cfg {
	struct device dev;
	struct vm *vm;
	struct bus_region region;

	struct item key[NKEYS];
	struct file *file[FW_CFG_MAX_FILES]; /* sorted by name */
	unsigned nfiles;
	struct {
		be32 count;
		struct fw_cfg_wire_file file[FW_CFG_MAX_FILES];
	} dir;

	/* guest-visible registers */
	uint16_t selector;
	uint64_t offset; /* into the selected item; at most its length */
	uint32_t dma_hi;

	/* what the selector stands for */
	const uint8_t *cur;
	size_t cur_len;
	struct file *cur_file; /* NULL: a fixed key, or nothing */
};

/* --- items --- */

static void item_release(struct item *it)
{
	free(it->owned);
	*it = (struct item){0};
}

static int item_set(struct item *it, const void *data, size_t len, enum fw_cfg_own own)
{
	void *owned = NULL;

	if (own == FW_CFG_COPY && len) {
		owned = malloc(len);
		if (!owned) {
			return -ENOMEM;
		}
		memcpy(owned, data, len);
		data = owned;
	} else if (own == FW_CFG_TAKE) {
		owned = (void *)(uintptr_t)data;
	}
	item_release(it);
	*it = (struct item){.data = data, .len = len, .owned = owned};
	return 0;
}

static void file_refresh(struct file *f)
{
	size_t len = 0;

	if (!f->refresh) {
		return;
	}
	f->item.data = f->refresh(f->opaque, &len);
	f->item.len = f->item.data ? len : 0;
}

/* Invariant 3. */
static void dir_build(struct fw_cfg *fw)
{
	memset(&fw->dir, 0, sizeof(fw->dir));
	fw->dir.count = be32_of(fw->nfiles);
	for (unsigned i = 0; i < fw->nfiles; i++) {
		struct file *f = fw->file[i];
		struct fw_cfg_wire_file *w = &fw->dir.file[i];

		file_refresh(f);
		w->size = be32_of((uint32_t)f->item.len);
		w->select = be16_of((uint16_t)(FW_CFG_FILE_FIRST + i));
		memcpy(w->name, f->name, sizeof(w->name));
	}
}

/* Points cur at what the selector names; does not touch the offset. */
static void select_resolve(struct fw_cfg *fw)
{
	uint16_t key = fw->selector;

	fw->cur = NULL;
	fw->cur_len = 0;
	fw->cur_file = NULL;
	if (key == FW_CFG_FILE_DIR) {
		dir_build(fw);
		fw->cur = (const uint8_t *)&fw->dir;
		fw->cur_len = sizeof(fw->dir.count) + fw->nfiles * sizeof(fw->dir.file[0]);
	} else if (key < NKEYS) {
		fw->cur = fw->key[key].data;
		fw->cur_len = fw->key[key].len;
	} else if ((unsigned)(key - FW_CFG_FILE_FIRST) < fw->nfiles) {
		struct file *f = fw->file[key - FW_CFG_FILE_FIRST];

		file_refresh(f);
		fw->cur = f->item.data;
		fw->cur_len = f->item.len;
		fw->cur_file = f;
	}
}

static void select_key(struct fw_cfg *fw, uint16_t key)
{
	fw->selector = key;
	fw->offset = 0;
	select_resolve(fw);
	trace_fw_cfg_select(key, fw->cur_file ? fw->cur_file->name : "", fw->cur_len);
}

/* The bytes left of the selected item. */
static size_t cur_left(const struct fw_cfg *fw)
{
	return fw->offset < fw->cur_len ? fw->cur_len - fw->offset : 0;
}

static void cur_advance(struct fw_cfg *fw, uint64_t n)
{
	fw->offset += MIN(n, cur_left(fw));
}

static uint8_t data_read(struct fw_cfg *fw)
{
	uint8_t v = 0;

	if (cur_left(fw)) {
		v = fw->cur[fw->offset];
		fw->offset++;
	}
	return v;
}

/* --- DMA --- */

static void dma_read(struct fw_cfg *fw, gpa_t gpa, uint32_t len)
{
	static const uint8_t zeroes[4096];
	size_t n = MIN((size_t)len, cur_left(fw));
	uint64_t rest;

	if (n && mem_write(fw->vm->mem, gpa, fw->cur + fw->offset, n)) {
		log_guest(fw->dev.id, "DMA of %zu bytes to 0x%llx, which is not RAM", n,
			  (unsigned long long)gpa);
		return;
	}
	cur_advance(fw, n);
	rest = MIN(len - n, MAX_ZERO);
	gpa += n;
	while (rest) {
		size_t chunk = MIN(rest, sizeof(zeroes));

		if (mem_write(fw->vm->mem, gpa, zeroes, chunk)) {
			return;
		}
		gpa += chunk;
		rest -= chunk;
	}
}

static void dma_write(struct fw_cfg *fw, gpa_t gpa, uint32_t len)
{
	struct file *f = fw->cur_file;

	if (!f || !f->written) {
		log_guest(fw->dev.id, "write to the read-only item 0x%x refused", fw->selector);
		return;
	}
	if (len > cur_left(fw)) {
		log_guest(fw->dev.id, "write of %u bytes behind the end of %s refused", len,
			  f->name);
		return;
	}
	if (len && mem_read(fw->vm->mem, gpa, (uint8_t *)f->item.owned + fw->offset, len)) {
		log_guest(fw->dev.id, "DMA of %u bytes from 0x%llx, which is not RAM", len,
			  (unsigned long long)gpa);
		return;
	}
	cur_advance(fw, len);
	f->written(f->opaque, f->item.data, f->item.len);
}

static void dma_run(struct fw_cfg *fw, gpa_t desc)
{
	struct fw_cfg_dma_access d;
	const be32 done = be32_of(0);
	uint32_t ctl, len;
	uint64_t gpa;

	if (mem_read(fw->vm->mem, desc, &d, sizeof(d))) {
		log_guest(fw->dev.id, "DMA descriptor at 0x%llx, which is not RAM",
			  (unsigned long long)desc);
		return;
	}
	ctl = be32_get(d.control);
	len = be32_get(d.length);
	gpa = be64_get(d.address);
	trace_fw_cfg_dma(ctl, gpa, len);
	if (ctl & FW_CFG_DMA_CTL_SELECT) {
		select_key(fw, (uint16_t)(ctl >> 16));
	}
	if (ctl & FW_CFG_DMA_CTL_READ) {
		dma_read(fw, gpa, len);
	} else if (ctl & FW_CFG_DMA_CTL_WRITE) {
		dma_write(fw, gpa, len);
	} else if (ctl & FW_CFG_DMA_CTL_SKIP) {
		cur_advance(fw, len);
	}
	mem_write(fw->vm->mem, desc + offsetof(struct fw_cfg_dma_access, control), &done,
		  sizeof(done));
}

/* --- ports --- */

static uint64_t port_read(void *opaque, uint64_t off, unsigned size)
{
	struct fw_cfg *fw = opaque;
	uint64_t v = 0;

	switch (off) {
	case FW_CFG_DATA_OFF:
		/* wider reads are the following bytes, first one lowest */
		for (unsigned i = 0; i < size; i++) {
			v |= (uint64_t)data_read(fw) << 8 * i;
		}
		return v;
	case FW_CFG_DMA_HI_OFF:
		return __builtin_bswap32((uint32_t)(FW_CFG_DMA_SIGNATURE >> 32));
	case FW_CFG_DMA_LO_OFF:
		return __builtin_bswap32((uint32_t)FW_CFG_DMA_SIGNATURE);
	default:
		return UINT64_MAX;
	}
}

static void port_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct fw_cfg *fw = opaque;

	if (off == FW_CFG_SELECTOR_OFF && size == 2) {
		select_key(fw, (uint16_t)value);
	} else if (off == FW_CFG_DMA_HI_OFF && size == 4) {
		fw->dma_hi = __builtin_bswap32((uint32_t)value);
	} else if (off == FW_CFG_DMA_LO_OFF && size == 4) {
		uint64_t desc = (uint64_t)fw->dma_hi << 32 | __builtin_bswap32((uint32_t)value);

		fw->dma_hi = 0;
		dma_run(fw, desc);
	}
	/* everything else: the data port has not taken writes since long ago */
}

static const struct bus_ops port_ops = {
	.read = port_read,
	.write = port_write,
	.min_size = 1,
	.max_size = 4,
};

/* --- the same in memory: data, selector and DMA address, all of them big-endian --- */

static uint64_t mmio_read(void *opaque, uint64_t off, unsigned size)
{
	struct fw_cfg *fw = opaque;
	uint64_t v = 0;

	if (off < FW_CFG_MMIO_SELECTOR) {
		/* following bytes in the order of memory, as the port has them */
		for (unsigned i = 0; i < size; i++) {
			v |= (uint64_t)data_read(fw) << 8 * i;
		}
		return v;
	}
	if (off >= FW_CFG_MMIO_DMA) {
		be64 signature = be64_of(FW_CFG_DMA_SIGNATURE);

		memcpy(&v, (uint8_t *)&signature + (off - FW_CFG_MMIO_DMA),
		       MIN(size, FW_CFG_MMIO_SIZE - off));
	}
	return v;
}

static void mmio_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct fw_cfg *fw = opaque;

	if (off == FW_CFG_MMIO_SELECTOR && size == 2) {
		select_key(fw, __builtin_bswap16((uint16_t)value));
	} else if (off == FW_CFG_MMIO_DMA && size == 8) {
		fw->dma_hi = 0;
		dma_run(fw, __builtin_bswap64(value));
	} else if (off == FW_CFG_MMIO_DMA && size == 4) {
		fw->dma_hi = __builtin_bswap32((uint32_t)value);
	} else if (off == FW_CFG_MMIO_DMA + 4 && size == 4) {
		uint64_t desc = (uint64_t)fw->dma_hi << 32 | __builtin_bswap32((uint32_t)value);

		fw->dma_hi = 0;
		dma_run(fw, desc);
	}
}

static const struct bus_ops mmio_ops = {
	.read = mmio_read,
	.write = mmio_write,
	.min_size = 1,
	.max_size = 8,
};

/* --- state --- */

struct writable_state {
	uint8_t name[FW_CFG_MAX_FILE_PATH];
	uint8_t data[FW_CFG_MAX_WRITABLE];
	uint32_t len;
};
struct fw_cfg_state {
	uint16_t selector;
	uint64_t offset;
	uint32_t dma_hi;
	struct writable_state writable[8];
	uint32_t nwritable;
};
#define MAX_WRITABLE_FILES ARRAY_SIZE(((struct fw_cfg_state *)0)->writable)

static int writable_validate(const void *p, struct err *err)
{
	const struct writable_state *w = p;

	if (w->name[sizeof(w->name) - 1]) {
		return err_set(err, EINVAL,
			       "the state of fw_cfg has a file name without an end");
	}
	return 0;
}

static const struct state_desc writable_desc = {
	.name = "fw-cfg-file",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct writable_state),
	.fields =
		(const struct state_field[]){
			STATE_F_BYTES(struct writable_state, name),
			STATE_F_BUF(struct writable_state, data, len),
			STATE_F_END,
		},
	.validate = writable_validate,
};

static const struct state_desc fw_cfg_desc = {
	.name = "fw-cfg",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct fw_cfg_state),
	.fields =
		(const struct state_field[]){
			STATE_F_U16(struct fw_cfg_state, selector),
			STATE_F_U64(struct fw_cfg_state, offset),
			STATE_F_U32(struct fw_cfg_state, dma_hi),
			STATE_F_VARRAY(struct fw_cfg_state, writable, &writable_desc,
				       nwritable),
			STATE_F_END,
		},
};

static int fw_cfg_save(struct device *d, void *p, struct err *err)
{
	struct fw_cfg *fw = container_of(d, struct fw_cfg, dev);
	struct fw_cfg_state *st = p;

	st->selector = fw->selector;
	st->offset = fw->offset;
	st->dma_hi = fw->dma_hi;
	for (unsigned i = 0; i < fw->nfiles; i++) {
		const struct file *f = fw->file[i];
		struct writable_state *w;

		if (!f->written) {
			continue;
		}
		w = &st->writable[st->nwritable++];
		memcpy(w->name, f->name, sizeof(w->name));
		memcpy(w->data, f->item.data, f->item.len);
		w->len = (uint32_t)f->item.len;
	}
	return 0;
}

static struct file *file_find(struct fw_cfg *fw, const char *name)
{
	for (unsigned i = 0; i < fw->nfiles; i++) {
		if (!strcmp(fw->file[i]->name, name)) {
			return fw->file[i];
		}
	}
	return NULL;
}

static int fw_cfg_load(struct device *d, const void *p, struct err *err)
{
	struct fw_cfg *fw = container_of(d, struct fw_cfg, dev);
	const struct fw_cfg_state *st = p;

	for (uint32_t i = 0; i < st->nwritable; i++) {
		const struct writable_state *w = &st->writable[i];
		const struct file *f = file_find(fw, (const char *)w->name);

		if (!f || !f->written || f->item.len != w->len) {
			return err_set(err, EINVAL,
				       "the state has a fw_cfg file %s of %u bytes, "
				       "which this machine does not have",
				       w->name, w->len);
		}
	}
	for (uint32_t i = 0; i < st->nwritable; i++) {
		const struct writable_state *w = &st->writable[i];
		struct file *f = file_find(fw, (const char *)w->name);

		memcpy(f->item.owned, w->data, w->len);
		f->written(f->opaque, f->item.data, f->item.len);
	}
	fw->selector = st->selector;
	fw->dma_hi = st->dma_hi;
	select_resolve(fw);
	/* the item may be shorter here: reads then give zeroes, as behind any end */
	fw->offset = MIN(st->offset, fw->cur_len);
	return 0;
}

/* --- life --- */

static void fw_cfg_reset(struct device *d)
{
	struct fw_cfg *fw = container_of(d, struct fw_cfg, dev);

	fw->dma_hi = 0;
	select_key(fw, FW_CFG_SIGNATURE);
}

static void fw_cfg_destroy(struct device *d)
{
	struct fw_cfg *fw = container_of(d, struct fw_cfg, dev);

	bus_del(fw->vm->bus, &fw->region);
	for (unsigned i = 0; i < NKEYS; i++) {
		item_release(&fw->key[i]);
	}
	for (unsigned i = 0; i < fw->nfiles; i++) {
		item_release(&fw->file[i]->item);
		free(fw->file[i]);
	}
	free(fw);
}

static const struct device_state_ops fw_cfg_state_ops = {
	.desc = &fw_cfg_desc,
	.save = fw_cfg_save,
	.load = fw_cfg_load,
};
static const struct device_ops fw_cfg_ops = {
	.name = "fw-cfg",
	.reset = fw_cfg_reset,
	.destroy = fw_cfg_destroy,
	.state = (const struct device_state_ops *const[]){&fw_cfg_state_ops, NULL},
};

static int fw_cfg_make(struct vm *vm, const struct bus_region *where, struct fw_cfg **out,
		       struct err *err)
{
	struct fw_cfg *fw = calloc(1, sizeof(*fw));
	int ret;

	if (!fw) {
		return err_set(err, ENOMEM, "no memory for fw_cfg");
	}
	fw->vm = vm;
	fw->region = *where;
	fw->region.name = "fw-cfg";
	fw->region.opaque = fw;
	fw->region.owner = vm->loop;
	fw->region.owner_reads = true;
	fw->key[FW_CFG_SIGNATURE] = (struct item){.data = "QEMU", .len = 4};
	ret = fw_cfg_set_u32(fw, FW_CFG_ID, FW_CFG_VERSION | FW_CFG_VERSION_DMA, err);
	if (ret) {
		goto free_fw;
	}
	ret = bus_add(vm->bus, &fw->region);
	if (ret) {
		err_set(err, -ret, "fw_cfg: cannot use the addresses at 0x%llx: %s",
			(unsigned long long)where->base, strerror(-ret));
		goto free_id;
	}
	ret = device_add(vm->devices, &fw->dev, &fw_cfg_ops, "fw-cfg", err);
	if (ret) {
		goto del_region;
	}
	select_key(fw, FW_CFG_SIGNATURE);
	*out = fw;
	return 0;

del_region:
	bus_del(vm->bus, &fw->region);
free_id:
	item_release(&fw->key[FW_CFG_ID]);
free_fw:
	free(fw);
	return ret;
}

int fw_cfg_new(struct vm *vm, uint16_t port, struct fw_cfg **out, struct err *err)
{
	const struct bus_region where = {
		.space = BUS_PIO,
		.base = port,
		.size = FW_CFG_DMA_LO_OFF + 4,
		.ops = &port_ops,
	};

	return fw_cfg_make(vm, &where, out, err);
}

int fw_cfg_new_mmio(struct vm *vm, uint64_t base, struct fw_cfg **out, struct err *err)
{
	const struct bus_region where = {
		.space = BUS_MMIO,
		.base = base,
		.size = FW_CFG_MMIO_SIZE,
		.ops = &mmio_ops,
	};

	return fw_cfg_make(vm, &where, out, err);
}

int fw_cfg_set_key(struct fw_cfg *fw, uint16_t key, const void *data, size_t len,
		   enum fw_cfg_own own, struct err *err)
{
	if (key >= NKEYS || key == FW_CFG_FILE_DIR || item_set(&fw->key[key], data, len, own)) {
		int errnum = key >= NKEYS || key == FW_CFG_FILE_DIR ? EINVAL : ENOMEM;

		if (own == FW_CFG_TAKE) {
			free((void *)(uintptr_t)data);
		}
		return err_set(err, errnum, "fw_cfg: cannot set key 0x%x: %s", key,
			       strerror(errnum));
	}
	if (fw->selector == key) {
		select_key(fw, key);
	}
	return 0;
}

int fw_cfg_set_u16(struct fw_cfg *fw, uint16_t key, uint16_t value, struct err *err)
{
	le16 v = le16_of(value);

	return fw_cfg_set_key(fw, key, &v, sizeof(v), FW_CFG_COPY, err);
}

int fw_cfg_set_u32(struct fw_cfg *fw, uint16_t key, uint32_t value, struct err *err)
{
	le32 v = le32_of(value);

	return fw_cfg_set_key(fw, key, &v, sizeof(v), FW_CFG_COPY, err);
}

/* Takes f into the sorted list. On error f and what it owns are freed. */
static int file_insert(struct fw_cfg *fw, struct file *f, const char *name, struct err *err)
{
	unsigned at = 0;
	int ret;

	if (!*name || strlen(name) >= FW_CFG_MAX_FILE_PATH || f->item.len > UINT32_MAX) {
		ret = err_set(err, EINVAL,
			      "fw_cfg: the file \"%s\" has a name of 1 to %d "
			      "characters and at most 4 GiB",
			      name, FW_CFG_MAX_FILE_PATH - 1);
		goto free_file;
	}
	if (file_find(fw, name)) {
		ret = err_set(err, EEXIST, "fw_cfg: there is a file \"%s\" already", name);
		goto free_file;
	}
	if (fw->nfiles == FW_CFG_MAX_FILES) {
		ret = err_set(err, ENOSPC, "fw_cfg: no room for \"%s\" besides %d files", name,
			      FW_CFG_MAX_FILES);
		goto free_file;
	}
	strcpy(f->name, name);
	while (at < fw->nfiles && strcmp(fw->file[at]->name, name) < 0) {
		at++;
	}
	memmove(&fw->file[at + 1], &fw->file[at], (fw->nfiles - at) * sizeof(fw->file[0]));
	fw->file[at] = f;
	fw->nfiles++;
	select_key(fw, fw->selector);
	return 0;

free_file:
	item_release(&f->item);
	free(f);
	return ret;
}

int fw_cfg_add_file(struct fw_cfg *fw, const char *name, const void *data, size_t len,
		    enum fw_cfg_own own, struct err *err)
{
	struct file *f = calloc(1, sizeof(*f));

	if (!f || item_set(&f->item, data, len, own)) {
		if (own == FW_CFG_TAKE) {
			free((void *)(uintptr_t)data);
		}
		free(f);
		return err_set(err, ENOMEM, "fw_cfg: no memory for the file \"%s\"", name);
	}
	return file_insert(fw, f, name, err);
}

int fw_cfg_add_file_refresh(struct fw_cfg *fw, const char *name, fw_cfg_refresh_fn *refresh,
			    void *opaque, struct err *err)
{
	struct file *f = calloc(1, sizeof(*f));

	if (!f) {
		return err_set(err, ENOMEM, "fw_cfg: no memory for the file \"%s\"", name);
	}
	f->refresh = refresh;
	f->opaque = opaque;
	return file_insert(fw, f, name, err);
}

int fw_cfg_add_file_writable(struct fw_cfg *fw, const char *name, const void *data, size_t len,
			     fw_cfg_written_fn *written, void *opaque, struct err *err)
{
	struct file *f;
	void *content;
	unsigned n = 0;

	for (unsigned i = 0; i < fw->nfiles; i++) {
		n += fw->file[i]->written != NULL;
	}
	if (!len || len > FW_CFG_MAX_WRITABLE || n == MAX_WRITABLE_FILES) {
		return err_set(err, EINVAL,
			       "fw_cfg: the writable file \"%s\" of %zu bytes is one "
			       "too many, empty or above %d bytes",
			       name, len, FW_CFG_MAX_WRITABLE);
	}
	f = calloc(1, sizeof(*f));
	content = calloc(1, len);
	if (!f || !content) {
		free(f);
		free(content);
		return err_set(err, ENOMEM, "fw_cfg: no memory for the file \"%s\"", name);
	}
	if (data) {
		memcpy(content, data, len);
	}
	f->item = (struct item){.data = content, .len = len, .owned = content};
	f->written = written;
	f->opaque = opaque;
	return file_insert(fw, f, name, err);
}
