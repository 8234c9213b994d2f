/*
 * Virtual I/O Device (VIRTIO) Version 1.2: what all device types share. Names as in the
 * specification; sections in brackets.
 */
#ifndef SPEC_VIRTIO_H
#define SPEC_VIRTIO_H

#include "base/wire.h"

/* Device status [2.1] */
#define VIRTIO_STATUS_ACKNOWLEDGE        1
#define VIRTIO_STATUS_DRIVER             2
#define VIRTIO_STATUS_DRIVER_OK          4
#define VIRTIO_STATUS_FEATURES_OK        8
#define VIRTIO_STATUS_DEVICE_NEEDS_RESET 64
#define VIRTIO_STATUS_FAILED             128

/* Reserved feature bits [6] */
#define VIRTIO_F_INDIRECT_DESC     28
#define VIRTIO_F_EVENT_IDX         29
#define VIRTIO_F_VERSION_1         32
#define VIRTIO_F_ACCESS_PLATFORM   33
#define VIRTIO_F_RING_PACKED       34
#define VIRTIO_F_IN_ORDER          35
#define VIRTIO_F_ORDER_PLATFORM    36
#define VIRTIO_F_SR_IOV            37
#define VIRTIO_F_NOTIFICATION_DATA 38
#define VIRTIO_F_NOTIF_CONFIG_DATA 39
#define VIRTIO_F_RING_RESET        40

/* Device types [5] */
#define VIRTIO_ID_NET     1
#define VIRTIO_ID_BLOCK   2
#define VIRTIO_ID_CONSOLE 3
#define VIRTIO_ID_ENTROPY 4

/* Split virtqueues [2.7] */
#define VIRTQ_DESC_ALIGN  16
#define VIRTQ_AVAIL_ALIGN 2
#define VIRTQ_USED_ALIGN  4

#define VIRTQ_DESC_F_NEXT     1
#define VIRTQ_DESC_F_WRITE    2
#define VIRTQ_DESC_F_INDIRECT 4

#define VIRTQ_USED_F_NO_NOTIFY     1
#define VIRTQ_AVAIL_F_NO_INTERRUPT 1

struct virtq_desc { /* [2.7.5] */
	le64 addr;
	le32 len;
	le16 flags;
	le16 next;
};
struct virtq_avail { /* [2.7.6] */
	le16 flags;
	le16 idx;
	le16 ring[]; /* queue size; then le16 used_event */
};
struct virtq_used_elem { /* [2.7.8] */
	le32 id;
	le32 len;
};
struct virtq_used {
	le16 flags;
	le16 idx;
	struct virtq_used_elem ring[]; /* queue size; then le16 avail_event */
};
/* Packed virtqueues [2.8]; NEXT, WRITE and INDIRECT are as above */
#define PVIRTQ_DESC_ALIGN  16
#define PVIRTQ_EVENT_ALIGN 4

#define VIRTQ_DESC_F_AVAIL (1 << 7)
#define VIRTQ_DESC_F_USED  (1 << 15)

#define RING_EVENT_FLAGS_ENABLE  0
#define RING_EVENT_FLAGS_DISABLE 1
#define RING_EVENT_FLAGS_DESC    2

struct pvirtq_desc { /* [2.8.13] */
	le64 addr;
	le32 len;
	le16 id;
	le16 flags;
};
struct pvirtq_event_suppress { /* [2.8.14] */
	le16 desc;  /* offset in bits 0-14, wrap counter in bit 15 */
	le16 flags; /* in bits 0-1 */
};
_Static_assert(sizeof(struct pvirtq_desc) == 16, "pvirtq_desc");
_Static_assert(sizeof(struct pvirtq_event_suppress) == 4, "pvirtq_event_suppress");
_Static_assert(sizeof(struct virtq_desc) == 16, "virtq_desc");
_Static_assert(sizeof(struct virtq_used_elem) == 8, "virtq_used_elem");

#endif
