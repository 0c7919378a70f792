"""The report's style sheet: light and dark, wide and narrow, on screen and on paper.

The series colours are those of Okabe and Ito (2008), distinguishable with any colour vision; lines also differ
in their dashes.
"""

STYLE = """
:root{color-scheme:light dark;--paper:#f6f7f9;--card:#fff;--ink:#16191f;--soft:#5b6472;--faint:#8b94a3;
--rule:#e3e7ed;--edge:#c3cad6;--good:#00785a;--bad:#b3420a;--heat:0,114,178;
--c0:#0072b2;--c1:#d98200;--c2:#009e73;--c3:#c4578f;--c4:#d55e00;--c5:#3fa0db;--c6:#8a7a00;--c7:#7a7f87}
@media (prefers-color-scheme:dark){:root{--paper:#0f1216;--card:#181c22;--ink:#eceff4;--soft:#a6afbd;
--faint:#7d8796;--rule:#2a303a;--edge:#4a5464;--good:#3ccfa0;--bad:#ff9a62;--heat:86,180,233;
--c0:#56b4e9;--c1:#e69f00;--c2:#2fc79b;--c3:#dd8fb8;--c4:#f0813a;--c5:#9fd3f5;--c6:#f0e442;--c7:#a6afbd}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",sans-serif}
main{max-width:1160px;margin:0 auto;padding:40px 28px 64px}
header{display:flex;flex-wrap:wrap;gap:8px 24px;align-items:flex-end;justify-content:space-between;margin-bottom:24px}
h1{font-size:30px;line-height:1.15;letter-spacing:-.02em;margin:0;font-weight:680}
h2{font-size:18px;line-height:1.3;letter-spacing:-.01em;margin:0 0 2px;font-weight:650}
h3{font-size:14px;margin:0 0 8px;font-weight:620}
p{margin:0}
.lead,.note{color:var(--soft)}
.lead{margin-top:6px}
.note{font-size:13.5px;max-width:96ch;margin-bottom:16px}
.verdict{font-size:13.5px;font-weight:600;padding:5px 12px;border-radius:999px;border:1px solid currentColor}
.good{color:var(--good)}.bad{color:var(--bad)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:12px;margin:0 0 16px;padding:0}
.tile,section{background:var(--card);border:1px solid var(--rule);border-radius:12px}
.tile{padding:14px 16px 12px}
.tile dt{font-size:12.5px;color:var(--soft);font-weight:560}
.tile dd{margin:0}
.tile .value{font-size:25px;line-height:1.25;font-weight:660;letter-spacing:-.02em;font-variant-numeric:tabular-nums}
.tile .value small{font-size:13px;font-weight:500;letter-spacing:0;color:var(--soft);margin-left:4px;
display:inline-block}
.tile .sub{font-size:12px;color:var(--soft);font-variant-numeric:tabular-nums}
.examples{margin:14px 0 0;padding-left:18px;font-size:13px;overflow-wrap:anywhere}
section{padding:22px 24px 24px;margin-top:16px}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:24px 36px}
.sections{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,460px),1fr));gap:16px;margin-top:16px}
.sections section{margin-top:0}
figure{margin:0;min-width:0}
div+figure{margin-top:24px}
.scroll svg[viewBox*="1120"]{min-width:620px}
svg{display:block;width:100%;height:auto;overflow:visible}
text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",sans-serif;fill:var(--soft)}
.title{fill:var(--faint)}
.tick{font-variant-numeric:tabular-nums}
.mid{text-anchor:middle}.end{text-anchor:end}
.grid{stroke:var(--rule)}.axis{stroke:var(--faint)}
.equal{stroke:var(--faint);stroke-dasharray:3 4}
.line{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}
.dot{stroke:var(--card);stroke-width:1}
.quiet{opacity:0}.quiet:hover{opacity:1}
.whisker{stroke-width:1.6;opacity:.55}
.band{opacity:.13;stroke:none}
.s-whole{stroke:var(--ink);fill:var(--ink)}.line.s-whole{stroke-width:2.6}
.s-0{stroke:var(--c0);fill:var(--c0)}
.s-1{stroke:var(--c1);fill:var(--c1)}.line.s-1{stroke-dasharray:7 4}
.s-2{stroke:var(--c2);fill:var(--c2)}.line.s-2{stroke-dasharray:2 4}
.s-3{stroke:var(--c3);fill:var(--c3)}.line.s-3{stroke-dasharray:9 3 2 3}
.s-4{stroke:var(--c4);fill:var(--c4)}
.s-5{stroke:var(--c5);fill:var(--c5)}.line.s-5{stroke-dasharray:7 4}
.s-6{stroke:var(--c6);fill:var(--c6)}.line.s-6{stroke-dasharray:2 4}
.s-7{stroke:var(--c7);fill:var(--c7)}.line.s-7{stroke-dasharray:1 4}
.line[class*=s-]{fill:none}.dot[class*=s-]{stroke:var(--card)}.dot[class*=s-]:hover{stroke:var(--ink);stroke-width:2}
.band[class*=s-]{stroke:none}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:2px 18px;margin:0 0 10px;padding:0;
font-size:13px;color:var(--soft)}
.legend li{display:flex;align-items:center;gap:7px}
.sample{width:26px;height:10px;flex:none}
.scroll{overflow-x:auto;background:linear-gradient(to right,var(--card) 30%,transparent) left/40px 100% no-repeat local,
linear-gradient(to left,var(--card) 30%,transparent) right/40px 100% no-repeat local,
linear-gradient(to right,var(--edge),transparent) left/10px 100% no-repeat scroll,
linear-gradient(to left,var(--edge),transparent) right/10px 100% no-repeat scroll}
a{color:var(--c0)}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:620;font-size:14px;padding-bottom:6px}
th{font-weight:560;color:var(--soft);font-size:12.5px;text-align:right;padding:5px 10px;white-space:nowrap;
border-bottom:1px solid var(--rule);vertical-align:bottom}
td{padding:6px 10px;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap}
tr:last-child td,tr:last-child th[scope=row]{border-bottom:0}
th:first-child,td:first-child{padding-left:0}
th:last-child,td:last-child{padding-right:0}
th.name,td.name,th[scope=row]{text-align:left}
th[scope=row]{color:var(--ink);font-size:14px;font-weight:500;vertical-align:middle}
tr.sum td,tr.sum th{border-top:1px solid var(--faint);border-bottom:0;font-weight:640}
td.wide{width:38%;min-width:80px}.split td.wide{width:26%;min-width:56px}
td.best{font-weight:700;color:var(--good)}
.bar{display:block;height:9px;border-radius:5px;background:var(--rule);overflow:hidden}
.fill{display:block;height:100%;border-radius:5px}
.fill.s-0{background:var(--c0)}.fill.s-1{background:var(--c1)}.fill.s-2{background:var(--c2)}
.fill.s-4{background:var(--c4)}.fill.s-7{background:var(--c7)}
.heat{border-collapse:separate;border-spacing:3px}
.heat td,.heat th{border:0}
.heat th[scope=row]{max-width:26ch;overflow:hidden;text-overflow:ellipsis;padding-right:10px;padding-left:0}
.heat td.cell{border-radius:6px;padding:5px 10px;text-align:center;min-width:86px;
background:rgba(var(--heat),var(--a))}
.heat td.strong{color:#fff}
@media (prefers-color-scheme:dark){.heat td.deep,.heat td.strong{color:#06121b}}
.heat .n{display:block;font-size:11.5px;opacity:.75;line-height:1.3}
.heat .thin{opacity:.5}
code,.mono{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,"DejaVu Sans Mono",monospace}
.pairs{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,310px),1fr));gap:0 36px;margin:0}
.pairs div{display:flex;justify-content:space-between;gap:16px;padding:5px 0;border-bottom:1px solid var(--rule)}
.pairs dt{color:var(--soft)}
.pairs dd{margin:0;text-align:right;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
.hashes{margin:0}
.hashes dt{color:var(--soft);font-size:13px}
.hashes dd{margin:0 0 10px;overflow-wrap:anywhere}
.check{margin-top:14px;font-size:13.5px}
footer{color:var(--faint);font-size:12.5px;margin-top:24px}
@media (max-width:560px){main{padding:24px 14px 40px}section{padding:18px 16px}h1{font-size:25px}
.tiles{grid-template-columns:1fr 1fr}text{font-size:16px}.heat td.cell{min-width:64px;padding:5px 4px}
th,td{padding-left:5px;padding-right:5px}.wide{display:none}th[scope=row]{white-space:normal}
.heat th[scope=row]{max-width:13ch;white-space:nowrap}}
details{margin-top:10px}summary{cursor:pointer;color:var(--soft);font-size:13.5px;padding:4px 0}
.empty{color:var(--soft);padding:28px 0 12px}
@media print{body{background:#fff}section,.tile{break-inside:avoid}}
"""
