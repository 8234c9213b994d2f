/*
 * Direct boot of a bzImage; an ELF file goes to pvh.c. See linux_boot.h.
 *
 * Low memory:  0x1000 GDT and page tables   0x8000 boot_params   0x20000 command line
 * The kernel lies where it prefers or, if that is not RAM and it is relocatable, at the lowest
 * aligned place above 1 MiB.
 *
 * Untrusted: both files. The header is read once into a host copy and judged there.
 */
#include <asm/bootparam.h>
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arch/x86/boot_int.h"
#include "arch/x86/regs.h"
#include "base/util.h"
#include "base/wire.h"

/* boot.rst, "Details of header fields": where they are in the file */
#define HDR_JUMP_LEN	 0x201 /* the header ends this many bytes after 0x202 */
#define HDR_MAGIC	 0x202
#define HDR_END		 0x264 /* up to init_size, the last field that we need */
#define HDR_BOOT	 0xAA55
#define HDR_HDRS	 0x53726448
#define HDR_VERSION	 0x020C /* the first with xloadflags */
#define SECTOR		 512
#define LOADER_UNDEFINED 0xFF
#define VIDEO_NORMAL	 0xFFFF
#define ENTRY_64	 0x200 /* startup_64, from where the kernel lies */

_Static_assert(offsetof(struct boot_params, hdr) == 0x1F1,
	       "the header is where the file has it");
_Static_assert(sizeof(struct boot_params) == 4096, "the zero page is a page");
_Static_assert(X86_MAX_E820 <= E820_MAX_ENTRIES_ZEROPAGE, "boot_params takes all entries");

int x86_linux_check(const void *head, size_t head_len, uint64_t file_size, const char *name,
		    struct x86_linux_kernel *k, struct err *err)
{
	struct setup_header h;
	unsigned end;

	if (head_len < HDR_END) {
		return err_set(err, EINVAL,
			       "-kernel %s: too short (%ju bytes) for a Linux kernel: give a "
			       "bzImage",
			       name, (uintmax_t)file_size);
	}
	memcpy(&h, (const char *)head + offsetof(struct boot_params, hdr),
	       MIN(sizeof(h), head_len - offsetof(struct boot_params, hdr)));
	end = HDR_MAGIC + ((const uint8_t *)head)[HDR_JUMP_LEN];
	if (h.boot_flag != HDR_BOOT || h.header != HDR_HDRS) {
		return err_set(err, EINVAL,
			       "-kernel %s: not a Linux kernel for x86: give a bzImage or a "
			       "vmlinux",
			       name);
	}
	if (h.version < HDR_VERSION || end < HDR_END) {
		return err_set(err, EINVAL,
			       "-kernel %s: boot protocol %u.%02u is too old: use Linux 3.8 or "
			       "newer",
			       name, h.version >> 8, h.version & 0xFF);
	}
	if (!(h.xloadflags & XLF_KERNEL_64) || !(h.loadflags & LOADED_HIGH)) {
		return err_set(err, EINVAL,
			       "-kernel %s: has no 64-bit entry: use a 64-bit kernel", name);
	}
	*k = (struct x86_linux_kernel){
		.version = h.version,
		.setup_size = ((h.setup_sects ? h.setup_sects : 4) + 1) * SECTOR,
		.pref_address = h.pref_address,
		.alignment = h.kernel_alignment,
		.init_size = h.init_size,
		.cmdline_max = h.cmdline_size,
		.initrd_addr_max = h.initrd_addr_max,
		.relocatable = h.relocatable_kernel,
	};
	if (file_size <= k->setup_size ||
	    align_up(file_size - k->setup_size, 16) < (uint64_t)h.syssize * 16) {
		return err_set(
			err, EINVAL,
			"-kernel %s: truncated, %ju bytes of at least %ju: copy it again", name,
			(uintmax_t)file_size,
			(uintmax_t)(k->setup_size + MAX((uint64_t)h.syssize * 16, 1)));
	}
	k->payload_size = file_size - k->setup_size;
	if (k->payload_size > UINT32_MAX || !is_pow2(k->alignment) || k->alignment < 4096 ||
	    k->alignment > GiB || k->pref_address >= 4 * GiB || !k->init_size) {
		return err_set(
			err, EINVAL,
			"-kernel %s: its header says it lies at %#jx, aligned to %#x, and "
			"needs %u bytes, which cannot be: copy it again",
			name, (uintmax_t)k->pref_address, k->alignment, k->init_size);
	}
	return 0;
}

static int place_kernel(const struct x86_linux_config *cfg, const struct x86_linux_kernel *k,
			uint64_t need, uint64_t *addr, struct err *err)
{
	if (k->pref_address >= MiB && boot_is_ram(cfg, k->pref_address, need)) {
		*addr = k->pref_address;
		return 0;
	}
	for (unsigned i = 0; k->relocatable && i < cfg->e820_count; i++) {
		*addr = align_up(MAX(cfg->e820[i].addr, MiB), k->alignment);
		if (boot_is_ram(cfg, *addr, need)) {
			return 0;
		}
	}
	return err_set(err, ENOMEM,
		       "-kernel %s: needs %ju MiB of guest memory: use a larger -m",
		       cfg->kernel_name, (uintmax_t)((need + MiB - 1) / MiB));
}

/* Everything but the files: command line, boot_params, tables. */
static int write_params(struct mem *m, const struct x86_linux_config *cfg,
			struct boot_params *bp, struct err *err)
{
	int r;

	bp->hdr.type_of_loader = LOADER_UNDEFINED;
	bp->hdr.vid_mode = VIDEO_NORMAL;
	bp->hdr.cmd_line_ptr = LOW_CMDLINE;
	bp->acpi_rsdp_addr = cfg->rsdp;
	bp->e820_entries = cfg->e820_count;
	for (unsigned i = 0; i < cfg->e820_count; i++) {
		bp->e820_table[i] = (struct boot_e820_entry){
			.addr = cfg->e820[i].addr,
			.size = cfg->e820[i].size,
			.type = cfg->e820[i].type,
		};
	}
	r = boot_write_cmdline(m, cfg, err);
	if (r < 0) {
		return r;
	}
	r = mem_write(m, LOW_PARAMS, bp, sizeof(*bp));
	if (r < 0) {
		return err_set(err, -r, "no guest memory below 640 KiB: use a larger -m");
	}
	return x86_boot_tables_write(m, LOW_TABLES, err);
}

/* The start of the file, zeroes behind a short one: its length. #syscalls(main): preadv */
static int read_head(const struct x86_linux_config *cfg, uint8_t head[X86_LINUX_HEADER_SIZE],
		     struct err *err)
{
	struct iovec iov = {head, X86_LINUX_HEADER_SIZE};
	ssize_t got;

	memset(head, 0, X86_LINUX_HEADER_SIZE);
	got = preadv(cfg->kernel_fd, &iov, 1, 0); /* the call that a reset needs anyway */
	if (got < 0) {
		return err_set(err, errno, "-kernel %s: %s", cfg->kernel_name, strerror(errno));
	}
	return (int)got;
}

static int load_bzimage(struct mem *m, const struct x86_linux_config *cfg, const uint8_t *head,
			size_t head_len, uint64_t file_size, struct x86_linux_entry *out,
			struct err *err)
{
	uint64_t kernel = 0, need, initrd, initrd_size;
	struct x86_linux_kernel k;
	struct boot_params bp = {0};
	int r;

	r = x86_linux_check(head, head_len, file_size, cfg->kernel_name, &k, err);
	if (r < 0) {
		return r;
	}
	memcpy(&bp.hdr, head + offsetof(struct boot_params, hdr),
	       MIN(sizeof(bp.hdr),
		   HDR_MAGIC + (size_t)head[HDR_JUMP_LEN] - offsetof(struct boot_params, hdr)));
	need = MAX(k.init_size, k.payload_size);
	r = boot_check_cmdline(cfg, k.cmdline_max, err);
	r = r ? r : place_kernel(cfg, &k, need, &kernel, err);
	r = r ? r
	      : boot_load_initrd(m, cfg, k.initrd_addr_max, kernel, need, &initrd, &initrd_size,
				 err);
	r = r ? r
	      : boot_file_to_guest(m, cfg->kernel_fd, k.setup_size, kernel, k.payload_size,
				   "-kernel", cfg->kernel_name, err);
	if (r < 0) {
		return r;
	}
	bp.hdr.code32_start = kernel;
	bp.hdr.ramdisk_image = initrd;
	bp.hdr.ramdisk_size = initrd_size;
	r = write_params(m, cfg, &bp, err);
	if (r < 0) {
		return r;
	}
	*out = (struct x86_linux_entry){
		.entry = kernel + ENTRY_64,
		.boot_params = LOW_PARAMS,
		.tables = LOW_TABLES,
	};
	return 0;
}

int x86_linux_load(struct mem *m, const struct x86_linux_config *cfg,
		   struct x86_linux_entry *out, struct err *err)
{
	uint8_t head[X86_LINUX_HEADER_SIZE];
	uint64_t size;
	int got, r;

	if (cfg->e820_count > X86_MAX_E820) {
		return err_set(err, EINVAL, "more than %d pieces of guest memory",
			       X86_MAX_E820);
	}
	r = boot_file_size(cfg->kernel_fd, "-kernel", cfg->kernel_name, &size, err);
	if (r < 0) {
		return r;
	}
	got = read_head(cfg, head, err);
	if (got < 0) {
		return got;
	}
	if (!memcmp(head, ELFMAG, SELFMAG)) {
		return x86_pvh_load(m, cfg, size, out, err);
	}
	return load_bzimage(m, cfg, head, (size_t)got, size, out, err);
}
