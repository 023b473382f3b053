-- What the kernel backend needs, in an order in which it loads. The outer guest's kernel loads nothing by itself: it has no
-- modprobe where the kernel looks for it.

return { "crc32c_generic", "tun", "bridge", "veth", "ifb", "sch_htb", "sch_tbf", "sch_netem", "sch_ingress", "cls_u32",
	"act_mirred", "nf_tables", "nft_numgen", "nft_objref", "nft_dup_netdev", "nft_meta_bridge", "nft_ct", "nft_chain_nat",
	"nft_masq" }
