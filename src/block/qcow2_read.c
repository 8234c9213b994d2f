/*
 * qcow2: reading, by the image's owner. What a channel can do itself never comes here.
 */
#include <errno.h>

#include "block/qcow2_int.h"

bool q2_backing_covers(const struct q2 *q, uint64_t off)
{
	return q->has_backing && off < q->backing.size;
}

int q2_backing_read(struct q2 *q, uint64_t off, uint64_t len, struct iov_cur *to)
{
	if (!q2_backing_covers(q, off)) {
		iov_cur_zero(to, len);
		return 0;
	}
	return q2_pread_iov(&q->backing, off, len, to);
}

/* The plain text of a compressed cluster stays in q->cluster_buf for reads that follow it. */
int q2_read_comp(struct q2 *q, uint64_t guest, uint64_t entry, const uint8_t **cluster)
{
	uint64_t len, off = q2_comp_range(&q->geo, entry, &len);
	int r;

	*cluster = q->cluster_buf;
	if (q->comp_cached == (guest >> q->geo.cluster_bits) + 1) {
		return 0;
	}
	q->comp_cached = 0;
	if (off >= q->file.size) {
		return q2_corrupt(q,
				  "the compressed cluster of guest offset 0x%llx is at 0x%llx, "
				  "outside of the file",
				  (unsigned long long)guest, (unsigned long long)off);
	}
	r = q2_pread(&q->file, off, q->comp_buf, len);
	r = r ? r : q2_inflate(q, q->comp_buf, len, q->cluster_buf, q->geo.cluster_size);
	if (!r) {
		q->comp_cached = (guest >> q->geo.cluster_bits) + 1;
	}
	return r;
}

int q2_read(struct q2 *q, uint64_t off, uint64_t len, struct iov_cur *to)
{
	while (len) {
		struct q2_ext_info x;
		const uint8_t *plain;
		int r = q2_map(q, off, len, &x);

		if (r < 0) {
			return r;
		}
		switch (x.type) {
		case Q2_UNALLOC:
			r = q2_backing_read(q, off, x.len, to);
			break;
		case Q2_ZERO:
		case Q2_ZERO_ALLOC:
			iov_cur_zero(to, x.len);
			break;
		case Q2_NORMAL:
			r = q2_pread_iov(q->geo.data_file ? &q->data : &q->file, x.host, x.len,
					 to);
			break;
		case Q2_COMP:
			r = q2_read_comp(q, off, x.entry, &plain);
			if (!r) {
				iov_cur_write(to, plain + (off & (q->geo.cluster_size - 1)),
					      x.len);
			}
			break;
		case Q2_BAD:
			r = -EIO;
			break;
		}
		if (r < 0) {
			return r;
		}
		off += x.len;
		len -= x.len;
	}
	return 0;
}

int q2_read_buf(struct q2 *q, uint64_t off, void *buf, uint64_t len)
{
	struct iovec iov = {buf, len};
	struct iov_cur cur = iov_cur_init(&iov, 1);

	return q2_read(q, off, len, &cur);
}

/* Neighbours are put together, so that a tool has few steps. */
int q2_status(struct q2 *q, uint64_t off, uint64_t len, struct q2_ext_info *out)
{
	int r = q2_map(q, off, len, out);

	while (!r && out->len < len && out->type != Q2_COMP) {
		struct q2_ext_info x;

		r = q2_map(q, off + out->len, len - out->len, &x);
		if (r || x.type != out->type ||
		    ((x.type == Q2_NORMAL || x.type == Q2_ZERO_ALLOC) &&
		     x.host != out->host + out->len)) {
			break;
		}
		out->len += x.len;
	}
	return r;
}
