/*
 * The qcow2 image format, versions 2 and 3: constants and structures on disk.
 * Source: "Qcow2 Image File Format" (docs/interop/qcow2 of the QEMU project). All big-endian.
 */
#ifndef SPEC_QCOW2_H
#define SPEC_QCOW2_H

#include "base/wire.h"

#define QCOW2_MAGIC 0x514649fbu /* "QFI\xfb" */

struct qcow2_header {
	be32 magic;
	be32 version;
	be64 backing_file_offset;
	be32 backing_file_size;
	be32 cluster_bits;
	be64 size;
	be32 crypt_method;
	be32 l1_size;
	be64 l1_table_offset;
	be64 refcount_table_offset;
	be32 refcount_table_clusters;
	be32 nb_snapshots;
	be64 snapshots_offset;
	/* version 3 */
	be64 incompatible_features;
	be64 compatible_features;
	be64 autoclear_features;
	be32 refcount_order;
	be32 header_length;
	/* additional fields */
	uint8_t compression_type;
	uint8_t padding[7];
} __attribute__((packed));

#define QCOW2_HEADER_V2	    72
#define QCOW2_HEADER_V3_MIN 104
#define QCOW2_HEADER_V3	    112

#define QCOW2_INCOMPAT_DIRTY	   (1u << 0)
#define QCOW2_INCOMPAT_CORRUPT	   (1u << 1)
#define QCOW2_INCOMPAT_DATA_FILE   (1u << 2)
#define QCOW2_INCOMPAT_COMPRESSION (1u << 3)
#define QCOW2_INCOMPAT_EXTL2	   (1u << 4)
#define QCOW2_INCOMPAT_KNOWN	   0x1fu
#define QCOW2_COMPAT_LAZY	   (1u << 0)
#define QCOW2_AUTOCLEAR_BITMAPS	   (1u << 0)
#define QCOW2_AUTOCLEAR_RAW	   (1u << 1)
#define QCOW2_AUTOCLEAR_KNOWN	   0x3u

#define QCOW2_EXT_END	      0x00000000u
#define QCOW2_EXT_BACKING_FMT 0xe2792acau
#define QCOW2_EXT_FEATURES    0x6803f857u
#define QCOW2_EXT_BITMAPS     0x23852875u
#define QCOW2_EXT_CRYPTO      0x0537be77u
#define QCOW2_EXT_DATA_FILE   0x44415441u

struct qcow2_ext {
	be32 type;
	be32 len;
} __attribute__((packed));

struct qcow2_feature_name {
	uint8_t type; /* 0 incompatible, 1 compatible, 2 autoclear */
	uint8_t bit;
	char name[46];
} __attribute__((packed));

struct qcow2_bitmaps_ext {
	be32 nb_bitmaps;
	be32 reserved;
	be64 directory_size;
	be64 directory_offset;
} __attribute__((packed));

struct qcow2_bitmap_entry {
	be64 table_offset;
	be32 table_size;
	be32 flags;
	uint8_t type;
	uint8_t granularity_bits;
	be16 name_size;
	be32 extra_data_size;
} __attribute__((packed));
#define QCOW2_BITMAP_IN_USE   (1u << 0)
#define QCOW2_BITMAP_AUTO     (1u << 1)
#define QCOW2_BITMAP_EXTRA_OK (1u << 2)
#define QCOW2_BITMAP_RESERVED 0xfffffff8u
#define QCOW2_BITMAP_TYPE     1

struct qcow2_snapshot {
	be64 l1_table_offset;
	be32 l1_size;
	be16 id_size;
	be16 name_size;
	be32 date_sec;
	be32 date_nsec;
	be64 vm_clock_nsec;
	be32 vm_state_size;
	be32 extra_data_size;
} __attribute__((packed));
struct qcow2_snapshot_extra {
	be64 vm_state_size;
	be64 disk_size;
	be64 icount;
} __attribute__((packed));

#define QCOW2_COPIED	      (UINT64_C(1) << 63)
#define QCOW2_COMPRESSED      (UINT64_C(1) << 62)
#define QCOW2_ZERO	      UINT64_C(1)
#define QCOW2_OFFSET	      UINT64_C(0x00fffffffffffe00)
#define QCOW2_L1_RESERVED     UINT64_C(0x7f000000000001ff)
#define QCOW2_L2_RESERVED     UINT64_C(0x3f000000000001fe)
#define QCOW2_REFTABLE_OFFSET UINT64_C(0xfffffffffffffe00)
#define QCOW2_SUB_ALLOC	      UINT64_C(0x00000000ffffffff)
#define QCOW2_SUB_ZERO	      UINT64_C(0xffffffff00000000)

#define QCOW2_MAX_BACKING 1023
#define QCOW2_MIN_BITS	  9
#define QCOW2_MAX_BITS	  21
#define QCOW2_MAX_ORDER	  6
/* what QEMU takes, and so what an image has that anybody uses */
#define QCOW2_MAX_L1	   (UINT64_C(32) << 20) /* bytes */
#define QCOW2_MAX_REFTABLE (UINT64_C(8) << 20)	/* bytes */
#define QCOW2_MAX_SNAPSHOTS	65536
#define QCOW2_MAX_SNAPSHOT_TABLE (UINT64_C(64) << 20)
#define QCOW2_MAX_SNAPSHOT_EXTRA 1024
#define QCOW2_MAX_BITMAPS	65535
#define QCOW2_MAX_BITMAP_DIR	(UINT64_C(65535) * 1024)

#endif
