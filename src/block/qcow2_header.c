/*
 * qcow2: the header and its extensions, between bytes and struct q2_header. Pure functions.
 *
 * Specification: "Header", "Header extensions", "Feature name table", "Bitmaps extension".
 * Limits beyond the specification's are QEMU's (spec/qcow2.h), so that sizes stay bounded.
 * Untrusted: every byte. A refusal names the file and the field.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2_int.h"

#define MAX_UNKNOWN 256

static const struct {
	uint8_t type, bit;
	const char *name;
} feature_names[] = {
	{0, 0, "dirty bit"},	    {0, 1, "corrupt bit"},	   {0, 2, "external data file"},
	{0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
	{2, 0, "bitmaps"},	    {2, 1, "raw external data"},
};

struct parse {
	struct q2_header *h;
	const uint8_t *buf;
	size_t len; /* of the first cluster that is there */
	uint64_t file_size;
	const char *name;
	struct err *err;
	const uint8_t *features;
	uint32_t nfeatures;
};

#define BAD(p, ...) bad(p, EINVAL, __VA_ARGS__)

static int bad(const struct parse *p, int errnum, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static int bad(const struct parse *p, int errnum, const char *fmt, ...)
{
	char text[300];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return err_set(p->err, errnum, "qcow2 image '%s': %s", p->name, text);
}

/* A table of `bytes` at off: aligned, begins in the file, its end is a number. */
static int table_check(const struct parse *p, const char *field, uint64_t off, uint64_t bytes)
{
	uint64_t mask = (UINT64_C(1) << p->h->cluster_bits) - 1;

	if (off & mask) {
		return BAD(p, "%s 0x%llx is not aligned to a cluster", field,
			   (unsigned long long)off);
	}
	if (!off || off >= p->file_size || off > INT64_MAX - bytes) {
		return BAD(p, "%s 0x%llx is outside of the file", field,
			   (unsigned long long)off);
	}
	return 0;
}

static void feature_text(const struct parse *p, unsigned bit, char *out, size_t n)
{
	for (uint32_t i = 0; i < p->nfeatures; i++) {
		struct qcow2_feature_name f;

		memcpy(&f, p->features + i * sizeof(f), sizeof(f));
		if (f.type == 0 && f.bit == bit) {
			snprintf(out, n, "'%.46s'", f.name);
			for (char *c = out; *c; c++) {
				if ((unsigned char)*c < 32 || (unsigned char)*c > 126) {
					*c = '?';
				}
			}
			return;
		}
	}
	snprintf(out, n, "number %u", bit);
}

static int fields_read(struct parse *p)
{
	struct q2_header *h = p->h;
	struct qcow2_header f = {0};
	size_t known;

	memcpy(&f, p->buf, MIN(p->len, sizeof(f)));
	if (p->len < QCOW2_HEADER_V2 || be32_get(f.magic) != QCOW2_MAGIC) {
		return BAD(p, "this is no qcow2 image (magic)");
	}
	h->version = be32_get(f.version);
	if (h->version != 2 && h->version != 3) {
		return bad(p, ENOTSUP, "version %u is not supported, 2 and 3 are", h->version);
	}
	h->cluster_bits = be32_get(f.cluster_bits);
	if (h->cluster_bits < QCOW2_MIN_BITS || h->cluster_bits > QCOW2_MAX_BITS) {
		return BAD(p, "cluster_bits %u is not within 9 to 21", h->cluster_bits);
	}
	h->size = be64_get(f.size);
	h->crypt_method = be32_get(f.crypt_method);
	h->l1_size = be32_get(f.l1_size);
	h->l1_offset = be64_get(f.l1_table_offset);
	h->rt_offset = be64_get(f.refcount_table_offset);
	h->rt_clusters = be32_get(f.refcount_table_clusters);
	h->nsnap = be32_get(f.nb_snapshots);
	h->snap_offset = be64_get(f.snapshots_offset);
	h->refcount_order = 4;
	h->header_length = QCOW2_HEADER_V2;
	if (h->version == 2) {
		return 0;
	}
	if (p->len < QCOW2_HEADER_V3_MIN) {
		return BAD(p, "the file ends inside the header");
	}
	h->incompat = be64_get(f.incompatible_features);
	h->compat = be64_get(f.compatible_features);
	h->autoclear = be64_get(f.autoclear_features);
	h->refcount_order = be32_get(f.refcount_order);
	h->header_length = be32_get(f.header_length);
	if (h->header_length < QCOW2_HEADER_V3_MIN || h->header_length % 8 ||
	    h->header_length > UINT64_C(1) << h->cluster_bits || h->header_length > p->len) {
		return BAD(p, "header_length %u is wrong", h->header_length);
	}
	known = MIN(h->header_length, sizeof(f));
	h->compression = known > offsetof(struct qcow2_header, compression_type)
				 ? f.compression_type
				 : 0;
	h->tail_len = h->header_length - (uint32_t)known;
	if (h->tail_len) {
		h->tail = malloc(h->tail_len);
		if (!h->tail) {
			return bad(p, ENOMEM, "out of memory");
		}
		memcpy(h->tail, p->buf + known, h->tail_len);
	}
	return 0;
}

static int fields_check(const struct parse *p)
{
	const struct q2_header *h = p->h;
	uint64_t cluster = UINT64_C(1) << h->cluster_bits;
	unsigned entry_bits = h->incompat & QCOW2_INCOMPAT_EXTL2 ? 4 : 3;
	unsigned l1_shift = 2 * h->cluster_bits - entry_bits;
	uint64_t need;
	int r;

	if (h->crypt_method) {
		return bad(
			p, ENOTSUP,
			"crypt_method %u: encrypted images are not supported; decrypt it with "
			"qemu-img convert",
			h->crypt_method);
	}
	if (h->refcount_order > QCOW2_MAX_ORDER) {
		return BAD(p, "refcount_order %u is above 6", h->refcount_order);
	}
	if (!!(h->incompat & QCOW2_INCOMPAT_COMPRESSION) != !!h->compression) {
		return BAD(p, "compression_type %u does not agree with incompatible_features",
			   h->compression);
	}
	if (h->compression > 1) {
		return bad(p, ENOTSUP, "compression_type %u is not supported", h->compression);
	}
	if ((h->incompat & QCOW2_INCOMPAT_EXTL2) && h->cluster_bits < 14) {
		return BAD(p, "cluster_bits %u is below 14, which extended L2 entries need",
			   h->cluster_bits);
	}
	if (h->size > INT64_MAX - cluster) {
		return BAD(p, "size %llu is too large", (unsigned long long)h->size);
	}
	if (h->l1_size * UINT64_C(8) > QCOW2_MAX_L1) {
		return BAD(p, "l1_size %u is too large", h->l1_size);
	}
	need = (h->size >> l1_shift) + !!(h->size & ((UINT64_C(1) << l1_shift) - 1));
	if (h->l1_size < need) {
		return BAD(p, "l1_size %u is too small for size %llu", h->l1_size,
			   (unsigned long long)h->size);
	}
	r = h->l1_size ? table_check(p, "l1_table_offset", h->l1_offset, h->l1_size * 8) : 0;
	if (r) {
		return r;
	}
	if (h->l1_size && h->l1_size * UINT64_C(8) > p->file_size - h->l1_offset) {
		return BAD(
			p,
			"the L1 table at l1_table_offset 0x%llx goes past the end of the file",
			(unsigned long long)h->l1_offset);
	}
	if (!h->rt_clusters || h->rt_clusters > QCOW2_MAX_REFTABLE >> h->cluster_bits) {
		return BAD(p, "refcount_table_clusters %u is wrong", h->rt_clusters);
	}
	r = table_check(p, "refcount_table_offset", h->rt_offset,
			(uint64_t)h->rt_clusters << h->cluster_bits);
	if (r) {
		return r;
	}
	if (h->nsnap > QCOW2_MAX_SNAPSHOTS) {
		return BAD(p, "nb_snapshots %u is too large", h->nsnap);
	}
	if (h->nsnap && (h->incompat & QCOW2_INCOMPAT_DATA_FILE)) {
		return BAD(p, "nb_snapshots %u: an image with an external data file has none",
			   h->nsnap);
	}
	return h->nsnap ? table_check(p, "snapshots_offset", h->snap_offset,
				      QCOW2_MAX_SNAPSHOT_TABLE)
			: 0;
}

static int ext_string(const struct parse *p, const uint8_t *data, uint32_t len, char *out,
		      size_t max, const char *what)
{
	if (len >= max || memchr(data, 0, len)) {
		return BAD(p, "header extension '%s' with %u bytes is malformed", what, len);
	}
	memcpy(out, data, len);
	out[len] = 0;
	return 0;
}

static int ext_bitmaps(struct parse *p, const uint8_t *data, uint32_t len)
{
	struct q2_header *h = p->h;
	struct qcow2_bitmaps_ext b;

	if (len != sizeof(b)) {
		return BAD(p, "the bitmaps extension has %u bytes", len);
	}
	memcpy(&b, data, sizeof(b));
	h->has_bitmaps = true;
	h->nbitmaps = be32_get(b.nb_bitmaps);
	h->bitmap_dir_size = be64_get(b.directory_size);
	h->bitmap_dir_offset = be64_get(b.directory_offset);
	if (!(h->autoclear & QCOW2_AUTOCLEAR_BITMAPS)) {
		return 0; /* not to be looked at */
	}
	if (be32_get(b.reserved) || !h->nbitmaps || h->nbitmaps > QCOW2_MAX_BITMAPS ||
	    h->bitmap_dir_size > QCOW2_MAX_BITMAP_DIR) {
		return BAD(p,
			   "the bitmaps extension is malformed (nb_bitmaps %u, "
			   "bitmap_directory_size %llu)",
			   h->nbitmaps, (unsigned long long)h->bitmap_dir_size);
	}
	return table_check(p, "bitmap_directory_offset", h->bitmap_dir_offset,
			   h->bitmap_dir_size);
}

static int ext_keep(const struct parse *p, uint32_t type, const uint8_t *data, uint32_t len)
{
	struct q2_header *h = p->h;
	struct q2_ext *e;

	if (h->next == MAX_UNKNOWN) {
		return BAD(p, "there are more than %d unknown header extensions", MAX_UNKNOWN);
	}
	e = realloc(h->ext, (h->next + 1) * sizeof(*e));
	if (!e) {
		return bad(p, ENOMEM, "out of memory");
	}
	h->ext = e;
	e += h->next;
	*e = (struct q2_ext){.type = type, .len = len, .data = malloc(len ? len : 1)};
	if (!e->data) {
		return bad(p, ENOMEM, "out of memory");
	}
	memcpy(e->data, data, len);
	h->next++;
	return 0;
}

static int ext_one(struct parse *p, uint32_t type, const uint8_t *data, uint32_t len)
{
	struct q2_header *h = p->h;

	switch (type) {
	case QCOW2_EXT_BACKING_FMT:
		if (*h->backing_fmt) {
			return BAD(p, "the backing format is given twice");
		}
		return ext_string(p, data, len, h->backing_fmt, sizeof(h->backing_fmt),
				  "backing format");
	case QCOW2_EXT_DATA_FILE:
		if (h->has_data_file) {
			return BAD(p, "the data file name is given twice");
		}
		h->has_data_file = true;
		return ext_string(p, data, len, h->data_file, sizeof(h->data_file),
				  "data file name");
	case QCOW2_EXT_BITMAPS:
		return h->has_bitmaps ? BAD(p, "the bitmaps extension is given twice")
				      : ext_bitmaps(p, data, len);
	case QCOW2_EXT_FEATURES:
		p->features = data;
		p->nfeatures = len / sizeof(struct qcow2_feature_name);
		return 0;
	default:
		return ext_keep(p, type, data, len);
	}
}

static int exts_read(struct parse *p, uint64_t end)
{
	uint64_t pos = p->h->header_length;
	int r;

	while (pos + sizeof(struct qcow2_ext) <= end) {
		struct qcow2_ext e;
		uint32_t len, type;

		memcpy(&e, p->buf + pos, sizeof(e));
		pos += sizeof(e);
		type = be32_get(e.type);
		len = be32_get(e.len);
		if (type == QCOW2_EXT_END) {
			return 0;
		}
		if (len > end - pos) {
			return BAD(p, "header extension 0x%x goes past the end of the header",
				   type);
		}
		r = ext_one(p, type, p->buf + pos, len);
		if (r) {
			return r;
		}
		pos += align_up(len, 8);
	}
	return 0;
}

static int backing_read(const struct parse *p)
{
	struct q2_header *h = p->h;
	struct qcow2_header f;
	uint64_t off;
	uint32_t size;

	memcpy(&f, p->buf, QCOW2_HEADER_V2);
	off = be64_get(f.backing_file_offset);
	size = be32_get(f.backing_file_size);
	if (!off) {
		return 0;
	}
	if (size > QCOW2_MAX_BACKING || !range_within(off, size, p->len) ||
	    off < h->header_length) {
		return BAD(p, "backing_file_offset 0x%llx with backing_file_size %u is wrong",
			   (unsigned long long)off, size);
	}
	if (memchr(p->buf + off, 0, size)) {
		return BAD(p, "the name of the backing file has a NUL in it");
	}
	memcpy(h->backing, p->buf + off, size);
	h->backing[size] = 0;
	if (*h->backing && (h->autoclear & QCOW2_AUTOCLEAR_RAW) &&
	    (h->incompat & QCOW2_INCOMPAT_DATA_FILE)) {
		return BAD(p, "backing_file_offset: a raw external data file excludes a "
			      "backing file");
	}
	return 0;
}

size_t q2_header_want(const uint8_t *buf, size_t len)
{
	struct qcow2_header f = {0};
	unsigned bits;

	memcpy(&f, buf, MIN(len, sizeof(f)));
	bits = be32_get(f.cluster_bits);
	return bits >= QCOW2_MIN_BITS && bits <= QCOW2_MAX_BITS ? (size_t)1 << bits : 512;
}

int q2_header_parse(struct q2_header *h, const uint8_t *buf, size_t len, uint64_t file_size,
		    const char *name, struct err *err)
{
	struct parse p = {h, buf, len, file_size, name, err, NULL, 0};
	struct qcow2_header f = {0};
	uint64_t unknown, end;
	char text[64];
	int r;

	memset(h, 0, sizeof(*h));
	r = fields_read(&p);
	if (r) {
		return r;
	}
	p.len = MIN(len, (size_t)1 << h->cluster_bits);
	memcpy(&f, buf, MIN(len, sizeof(f)));
	end = be64_get(f.backing_file_offset);
	/* the extensions first: they name features */
	r = backing_read(&p);
	r = r ? r : exts_read(&p, end ? end : p.len);
	unknown = h->incompat & ~(uint64_t)QCOW2_INCOMPAT_KNOWN;
	if (unknown) {
		feature_text(&p, (unsigned)__builtin_ctzll(unknown), text, sizeof(text));
		return bad(&p, ENOTSUP,
			   "it needs the incompatible feature %s, which is not supported",
			   text);
	}
	return r ? r : fields_check(&p);
}

void q2_header_fini(struct q2_header *h)
{
	for (unsigned i = 0; i < h->next; i++) {
		free(h->ext[i].data);
	}
	free(h->ext);
	free(h->tail);
	h->ext = NULL;
	h->tail = NULL;
	h->next = 0;
}

/* --- the other direction --- */

static uint64_t tail_at(const struct q2_header *h)
{
	return MIN(h->header_length, (uint32_t)sizeof(struct qcow2_header));
}

static struct qcow2_header fields_make(const struct q2_header *h)
{
	struct qcow2_header f = {
		.magic = be32_of(QCOW2_MAGIC),
		.version = be32_of(h->version),
		.cluster_bits = be32_of(h->cluster_bits),
		.size = be64_of(h->size),
		.crypt_method = be32_of(h->crypt_method),
		.l1_size = be32_of(h->l1_size),
		.l1_table_offset = be64_of(h->l1_offset),
		.refcount_table_offset = be64_of(h->rt_offset),
		.refcount_table_clusters = be32_of(h->rt_clusters),
		.nb_snapshots = be32_of(h->nsnap),
		.snapshots_offset = be64_of(h->snap_offset),
		.incompatible_features = be64_of(h->incompat),
		.compatible_features = be64_of(h->compat),
		.autoclear_features = be64_of(h->autoclear),
		.refcount_order = be32_of(h->refcount_order),
		.header_length = be32_of(h->header_length),
		.compression_type = (uint8_t)h->compression,
	};

	return f;
}

#define FIELDS_FROM offsetof(struct qcow2_header, cluster_bits)

size_t q2_header_fields(const struct q2_header *h, uint8_t buf[QCOW2_HEADER_V3])
{
	struct qcow2_header f = fields_make(h);
	size_t n = tail_at(h);

	/* the caller writes from FIELDS_FROM on: the backing file's name stays where it is */
	memcpy(buf, &f, n);
	return n;
}

static int put_ext(uint8_t *buf, size_t len, size_t *pos, uint32_t type, const void *data,
		   size_t n)
{
	struct qcow2_ext e = {be32_of(type), be32_of((uint32_t)n)};
	size_t total = sizeof(e) + align_up(n, 8);

	if (total > len - *pos) {
		return -ENOSPC;
	}
	memcpy(buf + *pos, &e, sizeof(e));
	if (n) {
		memcpy(buf + *pos + sizeof(e), data, n);
	}
	*pos += total;
	return 0;
}

static int put_features(uint8_t *buf, size_t len, size_t *pos)
{
	struct qcow2_feature_name f[ARRAY_SIZE(feature_names)] = {0};

	for (unsigned i = 0; i < ARRAY_SIZE(feature_names); i++) {
		f[i].type = feature_names[i].type;
		f[i].bit = feature_names[i].bit;
		strncpy(f[i].name, feature_names[i].name, sizeof(f[i].name) - 1);
	}
	return put_ext(buf, len, pos, QCOW2_EXT_FEATURES, f, sizeof(f));
}

int q2_header_encode(const struct q2_header *h, uint8_t *buf, size_t len)
{
	struct qcow2_header f = fields_make(h);
	size_t pos = tail_at(h), backing = strlen(h->backing), room = len;
	int r = 0;

	if (pos + h->tail_len > len || backing > len) {
		return -ENOSPC;
	}
	memset(buf, 0, len);
	if (h->tail_len) {
		memcpy(buf + pos, h->tail, h->tail_len);
	}
	pos += h->tail_len;
	if (*h->backing_fmt) {
		r = put_ext(buf, room, &pos, QCOW2_EXT_BACKING_FMT, h->backing_fmt,
			    strlen(h->backing_fmt));
	}
	if (!r && h->has_data_file) {
		r = put_ext(buf, room, &pos, QCOW2_EXT_DATA_FILE, h->data_file,
			    strlen(h->data_file));
	}
	if (!r && h->has_bitmaps) {
		struct qcow2_bitmaps_ext b = {be32_of(h->nbitmaps), be32_of(0),
					      be64_of(h->bitmap_dir_size),
					      be64_of(h->bitmap_dir_offset)};

		r = put_ext(buf, room, &pos, QCOW2_EXT_BITMAPS, &b, sizeof(b));
	}
	for (unsigned i = 0; i < h->next && !r; i++) {
		r = put_ext(buf, room, &pos, h->ext[i].type, h->ext[i].data, h->ext[i].len);
	}
	if (r) {
		return r;
	}
	/* the names are a help: where there is no room for them they stay away */
	if (h->version >= 3) {
		size_t end = pos;

		if (put_features(buf, room - MIN(room - pos, backing + 8), &pos) < 0) {
			pos = end;
		}
	}
	if (len - pos < backing + sizeof(struct qcow2_ext)) {
		return -ENOSPC;
	}
	pos += sizeof(struct qcow2_ext); /* the end: zeros */
	if (backing) {
		memcpy(buf + pos, h->backing, backing);
		f.backing_file_offset = be64_of(pos);
		f.backing_file_size = be32_of((uint32_t)backing);
	}
	memcpy(buf, &f, tail_at(h));
	return 0;
}
