/*
 * Loads an Image and its initrd: see linux_boot.h. The kernel lies at the lowest place it may, the
 * initrd behind what it needs. Files are read, never mapped; they are read again at each reset.
 */
#include "arch/arm64/linux_boot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arch/boot_file.h"
#include "base/gunzip.h"
#include "base/util.h"
#include "base/wire.h"

#define CHUNK		(64 * KiB)
#define MAGIC_OFF	56
#define BIG_ENDIAN_FLAG 1u

struct image_header {
	le32 code0, code1;
	le64 text_offset, image_size, flags;
	le64 reserved[3];
	uint8_t magic[4];
	le32 pe;
};
_Static_assert(sizeof(struct image_header) == ARM64_LINUX_HEADER_SIZE, "booting.rst");

int arm64_linux_check(const uint8_t head[ARM64_LINUX_HEADER_SIZE], size_t len, const char *name,
		      struct arm64_linux_kernel *k, struct err *err)
{
	struct image_header h;

	if (len < sizeof(h) || memcmp(head + MAGIC_OFF, "ARM\x64", 4)) {
		return err_set(
			err, EINVAL,
			"-kernel %s: is no Arm kernel: give arch/arm64/boot/Image of a kernel "
			"tree, packed with gzip or not, or the vmlinuz of a distribution",
			name);
	}
	memcpy(&h, head, sizeof(h));
	k->text_offset = le64_get(h.text_offset);
	k->size = le64_get(h.image_size);
	if (!k->size || le64_get(h.flags) & BIG_ENDIAN_FLAG) {
		return err_set(err, EINVAL,
			       "-kernel %s: is %s: use a newer little-endian kernel", name,
			       k->size ? "big-endian" : "from before Linux 3.17");
	}
	if (k->text_offset >= 2 * MiB || k->size > 4 * GiB) {
		return err_set(err, EINVAL, "-kernel %s: its header makes no sense", name);
	}
	return 0;
}

static int no_room(const char *option, const char *name, struct err *err)
{
	return err_set(err, ENOMEM, "%s %s: does not fit into memory: use a larger -m", option,
		       name);
}

static int unreadable(const char *name, int error, struct err *err)
{
	return err_set(err, error, "-kernel %s: cannot be read: %s", name,
		       error == EINVAL ? "its gzip data is damaged" : strerror(error));
}

/* Everything that the file gives, to gpa; *size is how much. */
static int copy(struct mem *m, struct gunzip *g, const char *name, uint64_t gpa, uint64_t end,
		uint64_t *size, struct err *err)
{
	uint8_t *buf = malloc(CHUNK);
	ssize_t n = buf ? 0 : -ENOMEM;
	uint64_t done = 0;

	while (buf) {
		n = gunzip_read(g, buf, CHUNK);
		if (n <= 0) {
			break;
		}
		if (!range_within(done, (uint64_t)n, end - gpa) ||
		    mem_write(m, gpa + done, buf, (size_t)n)) {
			free(buf);
			return no_room("-kernel", name, err);
		}
		done += (uint64_t)n;
	}
	free(buf);
	*size = done;
	return n < 0 ? unreadable(name, (int)-n, err) : 0;
}

/* The header says how much room there has to be. */
static int load_from(struct mem *m, const struct arm64_linux_config *cfg, struct gunzip *g,
		     uint64_t *entry, uint64_t *end, struct err *err)
{
	uint8_t head[ARM64_LINUX_HEADER_SIZE];
	struct arm64_linux_kernel k;
	uint64_t size = 0;
	ssize_t n = gunzip_read(g, head, sizeof(head));
	int ret;

	if (n < 0) {
		return unreadable(cfg->kernel_name, (int)-n, err);
	}
	ret = arm64_linux_check(head, (size_t)n, cfg->kernel_name, &k, err);
	if (ret) {
		return ret;
	}
	*entry = cfg->base + k.text_offset;
	if (*entry + k.size > cfg->end || mem_write(m, *entry, head, sizeof(head))) {
		return no_room("-kernel", cfg->kernel_name, err);
	}
	ret = copy(m, g, cfg->kernel_name, *entry + sizeof(head), cfg->end, &size, err);
	*end = *entry + MAX(k.size, size + sizeof(head));
	return ret;
}

static int load_kernel(struct mem *m, const struct arm64_linux_config *cfg, uint64_t *entry,
		       uint64_t *end, struct err *err)
{
	struct gunzip *g;
	int ret = gunzip_open(cfg->kernel_fd, &g);

	if (ret) {
		return unreadable(cfg->kernel_name, -ret, err);
	}
	ret = load_from(m, cfg, g, entry, end, err);
	gunzip_close(g);
	return ret;
}

/* As it is: the kernel unpacks it. */
static int load_initrd(struct mem *m, const struct arm64_linux_config *cfg, uint64_t gpa,
		       uint64_t *end, struct err *err)
{
	uint64_t size;
	int ret = boot_file_size(cfg->initrd_fd, "-initrd", cfg->initrd_name, &size, err);

	if (ret) {
		return ret;
	}
	if (gpa > cfg->end || size > cfg->end - gpa) {
		return no_room("-initrd", cfg->initrd_name, err);
	}
	*end = gpa + size;
	return boot_file_to_guest(m, cfg->initrd_fd, 0, gpa, size, "-initrd", cfg->initrd_name,
				  err);
}

int arm64_linux_load(struct mem *m, const struct arm64_linux_config *cfg,
		     struct arm64_linux_entry *out, struct err *err)
{
	uint64_t end = 0;
	int ret;

	*out = (struct arm64_linux_entry){0};
	ret = load_kernel(m, cfg, &out->entry, &end, err);
	if (!ret && cfg->initrd_name) {
		out->initrd_start = align_up(end, 64 * KiB);
		ret = load_initrd(m, cfg, out->initrd_start, &out->initrd_end, err);
	}
	return ret;
}
