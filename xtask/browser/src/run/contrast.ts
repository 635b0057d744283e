// Text that stands out too little from what is behind it.

// Runs in the page, so all that it needs is inside of it. 4.5 is what WCAG asks for normal text.
export function faint(): string[] {
  const LEAST = 4.5;

  function rgba(color: string): number[] {
    const parts = color.match(/[\d.]+/g)?.map(Number) ?? [];
    return [parts[0] ?? 0, parts[1] ?? 0, parts[2] ?? 0, parts[3] ?? 1];
  }

  function luminance(color: number[]): number {
    const [red, green, blue] = color.map((value) => {
      const share = value / 255;
      return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red! + 0.7152 * green! + 0.0722 * blue!;
  }

  function behind(element: Element): number[] {
    for (let at: Element | null = element; at; at = at.parentElement) {
      const color = rgba(getComputedStyle(at).backgroundColor);
      if (color[3]! > 0.5) {
        return color;
      }
    }
    const isDark = getComputedStyle(document.documentElement).colorScheme.includes('dark') && matchMedia('(prefers-color-scheme: dark)').matches;
    return isDark ? [18, 18, 18] : [255, 255, 255];
  }

  function ratio(element: Element): number {
    const style = getComputedStyle(element);
    const front = luminance(rgba(element instanceof SVGElement ? style.fill : style.color).slice(0, 3));
    const back = luminance(behind(element).slice(0, 3));
    return (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
  }

  const texts = [...document.body.querySelectorAll('*')].filter(
    (element) =>
      !['STYLE', 'SCRIPT', 'title', 'TITLE'].includes(element.tagName) &&
      element.getClientRects().length > 0 &&
      [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent?.trim()),
  );
  if (texts.length === 0) {
    return ['has no text'];
  }
  const seen = texts
    .filter((element) => ratio(element) < LEAST)
    .map((element) => `faint, ${ratio(element).toFixed(1)} to 1: ${element.textContent?.trim().slice(0, 40)}`);
  return [...new Set(seen)].slice(0, 5);
}
