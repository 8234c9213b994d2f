/*
 * Real-time clock registers. Motorola MC146818 datasheet; the century byte at 0x32 is where PC
 * firmware keeps it and where the FADT says it is.
 */
#ifndef SPEC_MC146818_H
#define SPEC_MC146818_H

#define RTC_SECONDS	  0x00
#define RTC_SECONDS_ALARM 0x01
#define RTC_MINUTES	  0x02
#define RTC_MINUTES_ALARM 0x03
#define RTC_HOURS	  0x04
#define RTC_HOURS_ALARM	  0x05
#define RTC_DAY_OF_WEEK	  0x06 /* 1 = Sunday */
#define RTC_DAY_OF_MONTH  0x07
#define RTC_MONTH	  0x08
#define RTC_YEAR	  0x09
#define RTC_REG_A	  0x0a
#define RTC_REG_B	  0x0b
#define RTC_REG_C	  0x0c
#define RTC_REG_D	  0x0d
#define RTC_CENTURY	  0x32

#define RTC_A_UIP   0x80
#define RTC_A_DV_RS 0x7f
#define RTC_A_RESET 0x26 /* 32.768 kHz time base, 1024 Hz rate */
#define RTC_B_SET   0x80
#define RTC_B_DM    0x04 /* binary instead of BCD */
#define RTC_B_24H   0x02
#define RTC_D_VRT   0x80
#define RTC_HOUR_PM 0x80 /* in 12-hour mode */

#endif
