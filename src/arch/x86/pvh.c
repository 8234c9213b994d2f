/*
 * Direct boot of an ELF kernel through its PVH entry (spec/pvh.h; ELF: System V gABI, chapters 4
 * and 5). Linux' vmlinux is one, and many small kernels.
 *
 * Low memory:  0x8000 start info, the module list and the memory map behind it
 *              0x20000 command line
 * Segments lie at the physical addresses that the file gives, above 1 MiB, in RAM below 4 GiB;
 * what a segment has in memory beyond its bytes in the file is zeroed, at each reset anew. The
 * initrd is the only module.
 *
 * Untrusted: the file. Headers and notes are read once into host copies, in pieces of capped
 * size, and judged there; segments that overlap hurt nobody but the guest.
 */
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "arch/x86/boot_int.h"
#include "base/util.h"
#include "spec/pvh.h"

#define MAX_PHDRS 64
#define MAX_NOTES (64 * KiB) /* bytes of one segment of notes */

struct image {
	const struct x86_linux_config *cfg;
	uint64_t file_size;
	unsigned nphdrs;
	Elf64_Phdr phdr[MAX_PHDRS];
	uint64_t low, high; /* all segments are in [low, high) */
	uint64_t entry;
};

/* What stands there, checked by the caller to be within the file. #syscalls(main): preadv */
static int read_at(const struct image *im, uint64_t off, void *buf, size_t len, struct err *err)
{
	struct iovec iov = {buf, len};
	ssize_t got = preadv(im->cfg->kernel_fd, &iov, 1, (off_t)off);

	if (got < 0 || (size_t)got != len) {
		return err_set(err, got < 0 ? errno : EIO, "-kernel %s: cannot be read: %s",
			       im->cfg->kernel_name,
			       got < 0 ? strerror(errno) : "it became shorter meanwhile");
	}
	return 0;
}

static int truncated(const struct image *im, struct err *err)
{
	return err_set(
		err, EINVAL,
		"-kernel %s: truncated, it has %ju bytes and its headers name some behind "
		"that: copy it again",
		im->cfg->kernel_name, (uintmax_t)im->file_size);
}

static int read_headers(struct image *im, struct err *err)
{
	Elf64_Ehdr h;
	int r;

	if (im->file_size < sizeof(h)) {
		return truncated(im, err);
	}
	r = read_at(im, 0, &h, sizeof(h), err);
	if (r) {
		return r;
	}
	if (h.e_ident[EI_CLASS] != ELFCLASS64 || h.e_ident[EI_DATA] != ELFDATA2LSB ||
	    h.e_machine != EM_X86_64 || (h.e_type != ET_EXEC && h.e_type != ET_DYN)) {
		return err_set(
			err, EINVAL,
			"-kernel %s: an ELF file, but not a 64-bit program for x86: give "
			"a vmlinux or a bzImage",
			im->cfg->kernel_name);
	}
	if (h.e_phentsize != sizeof(Elf64_Phdr) || !h.e_phnum || h.e_phnum > MAX_PHDRS) {
		return err_set(err, EINVAL,
			       "-kernel %s: has %u program headers of %u bytes, and 1 to %u of "
			       "%zu can be: copy it again",
			       im->cfg->kernel_name, h.e_phnum, h.e_phentsize, MAX_PHDRS,
			       sizeof(Elf64_Phdr));
	}
	im->nphdrs = h.e_phnum;
	if (!range_within(h.e_phoff, im->nphdrs * sizeof(Elf64_Phdr), im->file_size)) {
		return truncated(im, err);
	}
	return read_at(im, h.e_phoff, im->phdr, im->nphdrs * sizeof(Elf64_Phdr), err);
}

static int check_segments(struct image *im, struct err *err)
{
	im->low = UINT64_MAX;
	for (unsigned i = 0; i < im->nphdrs; i++) {
		const Elf64_Phdr *p = &im->phdr[i];

		if (p->p_type != PT_LOAD || (!p->p_memsz && !p->p_filesz)) {
			continue;
		}
		if (!range_within(p->p_offset, p->p_filesz, im->file_size)) {
			return truncated(im, err);
		}
		if (p->p_filesz > p->p_memsz || p->p_paddr < MiB) {
			return err_set(err, EINVAL,
				       "-kernel %s: a segment lies at %#jx, with %#jx bytes of "
				       "the file in %#jx of memory, which cannot be: copy it "
				       "again",
				       im->cfg->kernel_name, (uintmax_t)p->p_paddr,
				       (uintmax_t)p->p_filesz, (uintmax_t)p->p_memsz);
		}
		if (!boot_is_ram(im->cfg, p->p_paddr, p->p_memsz)) {
			return err_set(
				err, ENOMEM,
				"-kernel %s: a segment of %#jx bytes lies at %#jx, where "
				"the guest has no memory: use a larger -m",
				im->cfg->kernel_name, (uintmax_t)p->p_memsz,
				(uintmax_t)p->p_paddr);
		}
		im->low = MIN(im->low, p->p_paddr);
		im->high = MAX(im->high, p->p_paddr + p->p_memsz);
	}
	return 0;
}

/* Looks for the note in one segment of notes. gABI, "Note Section": owner and content are
 * aligned each, to 8 in segments that say so. */
static bool notes_find(const uint8_t *p, size_t len, uint64_t align, uint64_t *entry)
{
	uint64_t at = 0;

	while (range_within(at, sizeof(Elf64_Nhdr), len)) {
		uint64_t name = at + sizeof(Elf64_Nhdr), desc, end;
		Elf64_Nhdr n;

		memcpy(&n, p + at, sizeof(n));
		desc = align_up(name + n.n_namesz, align);
		end = desc + n.n_descsz;
		if (end > len) {
			return false;
		}
		if (n.n_type == PVH_NOTE_TYPE && n.n_namesz == sizeof(PVH_NOTE_NAME) &&
		    !memcmp(p + name, PVH_NOTE_NAME, sizeof(PVH_NOTE_NAME)) &&
		    (n.n_descsz == 4 || n.n_descsz == 8)) {
			*entry = 0;
			memcpy(entry, p + desc, n.n_descsz);
			return true;
		}
		at = align_up(end, align);
	}
	return false;
}

static int find_entry(struct image *im, struct err *err)
{
	bool found = false;
	int r = 0;

	for (unsigned i = 0; i < im->nphdrs && !found && !r; i++) {
		const Elf64_Phdr *p = &im->phdr[i];
		uint8_t *notes;

		if (p->p_type != PT_NOTE || !p->p_filesz || p->p_filesz > MAX_NOTES) {
			continue;
		}
		if (!range_within(p->p_offset, p->p_filesz, im->file_size)) {
			return truncated(im, err);
		}
		notes = malloc(p->p_filesz);
		if (!notes) {
			return err_set(err, ENOMEM, "-kernel %s: no memory for its notes",
				       im->cfg->kernel_name);
		}
		r = read_at(im, p->p_offset, notes, p->p_filesz, err);
		found = !r &&
			notes_find(notes, p->p_filesz, p->p_align == 8 ? 8 : 4, &im->entry);
		free(notes);
	}
	if (!r && !found) {
		return err_set(err, EINVAL,
			       "-kernel %s: an ELF file without a PVH entry: build the kernel "
			       "with CONFIG_PVH, or give its bzImage",
			       im->cfg->kernel_name);
	}
	return r;
}

/* The entry has to be in bytes that come from the file. */
static int check_entry(const struct image *im, struct err *err)
{
	for (unsigned i = 0; i < im->nphdrs; i++) {
		const Elf64_Phdr *p = &im->phdr[i];

		if (p->p_type == PT_LOAD && im->entry >= p->p_paddr &&
		    im->entry - p->p_paddr < p->p_filesz) {
			return 0;
		}
	}
	return err_set(
		err, EINVAL,
		"-kernel %s: its PVH entry %#jx is in none of its segments: copy it again",
		im->cfg->kernel_name, (uintmax_t)im->entry);
}

static int load_segments(struct mem *m, const struct image *im, struct err *err)
{
	for (unsigned i = 0; i < im->nphdrs; i++) {
		const Elf64_Phdr *p = &im->phdr[i];
		int r;

		if (p->p_type != PT_LOAD) {
			continue;
		}
		r = boot_file_to_guest(m, im->cfg->kernel_fd, p->p_offset, p->p_paddr,
				       p->p_filesz, "-kernel", im->cfg->kernel_name, err);
		if (r) {
			return r;
		}
		boot_zero_guest(m, p->p_paddr + p->p_filesz, p->p_memsz - p->p_filesz);
	}
	return 0;
}

static int write_start_info(struct mem *m, const struct x86_linux_config *cfg, uint64_t initrd,
			    uint64_t initrd_size, struct err *err)
{
	struct {
		struct hvm_start_info info;
		struct hvm_modlist_entry module;
		struct hvm_memmap_entry map[X86_MAX_E820];
	} s = {
		.info =
			{
				.magic = le32_of(HVM_START_MAGIC),
				.version = le32_of(HVM_START_VERSION),
				.nr_modules = le32_of(initrd_size ? 1 : 0),
				.cmdline_paddr = le64_of(LOW_CMDLINE),
				.rsdp_paddr = le64_of(cfg->rsdp),
				.memmap_entries = le32_of(cfg->e820_count),
			},
		.module = {.paddr = le64_of(initrd), .size = le64_of(initrd_size)},
	};
	int r;

	if (initrd_size) {
		s.info.modlist_paddr = le64_of(LOW_PARAMS + offsetof(typeof(s), module));
	}
	s.info.memmap_paddr = le64_of(LOW_PARAMS + offsetof(typeof(s), map));
	for (unsigned i = 0; i < cfg->e820_count; i++) {
		s.map[i].addr = le64_of(cfg->e820[i].addr);
		s.map[i].size = le64_of(cfg->e820[i].size);
		s.map[i].type = le32_of(cfg->e820[i].type);
	}
	r = mem_write(m, LOW_PARAMS, &s, sizeof(s));
	return r ? err_set(err, -r, "no guest memory below 640 KiB: use a larger -m") : 0;
}

int x86_pvh_load(struct mem *m, const struct x86_linux_config *cfg, uint64_t file_size,
		 struct x86_linux_entry *out, struct err *err)
{
	struct image im = {.cfg = cfg, .file_size = file_size};
	uint64_t initrd, initrd_size;
	int r;

	r = read_headers(&im, err);
	r = r ? r : find_entry(&im, err);
	r = r ? r : check_segments(&im, err);
	r = r ? r : check_entry(&im, err);
	r = r ? r : boot_check_cmdline(cfg, UINT64_MAX, err);
	r = r ? r
	      : boot_load_initrd(m, cfg, UINT32_MAX, im.low, im.high - im.low, &initrd,
				 &initrd_size, err);
	r = r ? r : load_segments(m, &im, err);
	r = r ? r : boot_write_cmdline(m, cfg, err);
	r = r ? r : write_start_info(m, cfg, initrd, initrd_size, err);
	if (r) {
		return r;
	}
	*out = (struct x86_linux_entry){
		.entry = im.entry,
		.boot_params = LOW_PARAMS,
		.pvh = true,
	};
	return 0;
}
